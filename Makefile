# What a person does with Orlop from a fresh clone. On Debian, missing tools are installed.

CARGO ?= cargo

.PHONY: build tools demo test bench install

build: ## the binary, in target/release/orlop
	$(CARGO) build --release --locked

tools: ## what the demo and the tests need besides Rust
	@./tests/tools.sh

demo: tools build ## a database on a volume: snapshot, lose the pod, restore; leaves nothing behind
	@"$${CARGO_TARGET_DIR:-target}/release/orlop" demo

test: tools ## all tests that this machine allows; what is skipped says why
	$(CARGO) test --locked

bench: tools build ## every figure beside its floor
	$(CARGO) bench --locked --bench volumes
