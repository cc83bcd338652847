# What a person does with Orlop from a fresh clone. On Debian, missing tools are installed.

CARGO ?= cargo

.PHONY: build demo man deb plugin kind manifests test test-long test-cluster test-cluster-suite bench-cluster bench bench-layers bench-machine

build: ## the binary, in target/release/orlop
	$(CARGO) build --release --locked

demo: ## a database on a volume: snapshot, lose the pod, restore; leaves nothing behind. POOL=lvm or zfs: in a guest
	@./tests/tools.sh demo
ifdef POOL
	@$(CARGO) test --quiet --locked --test machine -- --quiet --ignored --exact demo::$(POOL)
else
	@$(MAKE) --no-print-directory build
	@"$${CARGO_TARGET_DIR:-target}/release/orlop" demo
endif

man: build ## manual pages and shell completions, in target/man and target/completions
	@out="$${CARGO_TARGET_DIR:-target}" && mkdir -p "$$out/man" "$$out/completions" && \
	"$$out/release/orlop" man "$$out/man" && \
	for shell in bash zsh fish; do "$$out/release/orlop" completions $$shell >"$$out/completions/orlop.$$shell"; done

test: ## all tests that this machine allows; what is skipped says why
	@./tests/tools.sh test
	$(CARGO) test --locked

test-long: test ## those that take long, too: all claims on each kind of pool, 30 power cuts, the demo in the guest
	ORLOP_LONG=1 ORLOP_POWER_CUTS=30 $(CARGO) test --locked --test machine
	$(CARGO) test --locked --test machine -- --ignored demo::

test-cluster: ## the chart in a real Kubernetes; the first time builds that, half an hour. ORLOP_KUBERNETES=1.34: in an older one
	@./tests/tools.sh cluster
	$(CARGO) test --locked --test cluster

test-cluster-suite: ## upstream's storage suite against each class there
	@./tests/tools.sh cluster
	$(CARGO) test --locked --test cluster -- --ignored --test-threads=1 suite

bench-cluster: ## how fast claims are served there, and what a router costs over 5,000 nodes
	@./tests/tools.sh cluster
	$(CARGO) test --release --locked --test cluster -- --ignored --nocapture figures
	$(CARGO) bench --locked --bench router

kind: build ## a kind cluster with Orlop in it, for whom has docker and kind
	@deploy/kind/up.sh

bench: ## every figure beside its floor
	@./tests/tools.sh test
	$(CARGO) bench --locked --bench volumes

bench-layers: ## the layer cache on links of 100 Mbit/s, beside direct pulls
	@./tests/tools.sh bench
	$(CARGO) bench --locked --bench layers

bench-machine: ## each call on LVM and ZFS beside the bare tools, and among a thousand volumes, in the guest
	@./tests/tools.sh test
	$(CARGO) test --quiet --release --locked --test machine -- --quiet --ignored --test-threads=1 figures::

manifests: ## deploy/kubernetes from the chart
	@deploy/manifests.sh

deb: build ## a Debian package with the node and the Docker plugin as services
	@./packaging/deb.sh "$${CARGO_TARGET_DIR:-target}/release/orlop" "$${CARGO_TARGET_DIR:-target}"

plugin: build ## what `docker plugin create orlop` takes, in target/plugin
	@./packaging/plugin.sh "$${CARGO_TARGET_DIR:-target}/release/orlop" "$${CARGO_TARGET_DIR:-target}/plugin"
