# What a person does with Orlop from a fresh clone. On Debian, missing tools are installed.

CARGO ?= cargo

.PHONY: build demo test bench

build: ## the binary, in target/release/orlop
	$(CARGO) build --release --locked

demo: build ## a database on a volume: snapshot, lose the pod, restore; leaves nothing behind
	@./tests/tools.sh demo
	@"$${CARGO_TARGET_DIR:-target}/release/orlop" demo

test: ## all tests that this machine allows; what is skipped says why
	@./tests/tools.sh test
	$(CARGO) test --locked

bench: ## every figure beside its floor
	@./tests/tools.sh test
	$(CARGO) bench --locked --bench volumes
