# Thin entry points; README opens with the first two.
#
#   make quickstart   build, convert real text, inspect it, train a small GPT on it, generate
#   make test         every test that needs no server and no network
#   make soak         the tests of faults and kills, ten times as long and more: about a quarter of an hour
#   make test-servers the tests against real S3, GCS, Azure, MLflow and Slurm servers on 127.0.0.1, which it installs
#   make check        format, lints, documentation, licences
#   make bench        micro-benchmarks (criterion)
#   make bench-peers  measure this library, the reference and litdata side by side, into benches/runs/
#   make bench-order  the same for the order of very long epochs; takes 18 GB of memory
#   make conformance  exchange datasets with the reference implementation, both ways
#   make cuda-check   lint the CUDA feature
#   make cuda         build with CUDA into target-cuda/, print the device report, train two steps where there is a GPU

CARGO ?= cargo
# One profile for programs, tests and benches: dependencies are built once, and what is tested is what runs.
PROFILE := --release

.PHONY: quickstart test test-servers check bench bench-peers bench-order conformance cuda cuda-check soak

quickstart:
	@scripts/quickstart

test:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run $(PROFILE) --workspace --no-fail-fast; \
	else \
	  $(CARGO) test $(PROFILE) --workspace --no-fail-fast --lib --bins --tests; \
	fi
	@$(CARGO) test $(PROFILE) --workspace --doc --quiet
	@echo "Skipped: tests/remotes.rs on real servers; make test-servers runs it."

# Azurite comes by npm. Without it tests/servers/run says so, and its tests are left out.
HAS_NPM := $(shell command -v npm 2>/dev/null)
test-servers:
	@if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  tests/servers/run $(CARGO) nextest run $(PROFILE) --workspace --test remotes --no-fail-fast --run-ignored all \
	    $(if $(HAS_NPM),,-E 'not test(/^azure::/)') && \
	  tests/servers/run $(CARGO) nextest run $(PROFILE) --workspace --test train_remotes --run-ignored only && \
	  tests/servers/mlflow $(CARGO) nextest run $(PROFILE) --workspace --test train_trackers --run-ignored only && \
	  tests/servers/slurm $(CARGO) nextest run $(PROFILE) --workspace --test convert_slurm --run-ignored only; \
	else \
	  tests/servers/run $(CARGO) test $(PROFILE) --workspace --test remotes --no-fail-fast -- --include-ignored \
	    $(if $(HAS_NPM),,--skip azure::) && \
	  tests/servers/run $(CARGO) test $(PROFILE) --workspace --test train_remotes -- --ignored && \
	  tests/servers/mlflow $(CARGO) test $(PROFILE) --workspace --test train_trackers -- --ignored && \
	  tests/servers/slurm $(CARGO) test $(PROFILE) --workspace --test convert_slurm -- --ignored; \
	fi

# MDS_SOAK=2 make soak is shorter. Where there is no nextest, one program after the other.
soak:
	@export MDS_SOAK=$${MDS_SOAK:-10}; \
	if $(CARGO) nextest --version >/dev/null 2>&1; then \
	  $(CARGO) nextest run $(PROFILE) --workspace --test faults --test faults_io --no-fail-fast; \
	else \
	  $(CARGO) test $(PROFILE) --workspace --test faults --test faults_io --no-fail-fast; \
	fi

check:
	@! git grep -nE '^(<{7}|>{7}) ' || { echo 'these are marks of a merge that was not finished'; exit 1; }
	$(CARGO) fmt --all --check
	$(CARGO) clippy $(PROFILE) --workspace --all-targets -- -D warnings
	$(CARGO) check $(PROFILE) -p mds
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc $(PROFILE) --workspace --no-deps --document-private-items
	@command -v cargo-deny >/dev/null || { echo "cargo-deny is missing; install it with: cargo install --locked cargo-deny"; exit 1; }
	cargo-deny --workspace --all-features check licenses bans sources

bench:
	$(CARGO) bench --workspace --benches

bench-peers:
	@scripts/bench-peers

bench-order:
	@scripts/bench-order

conformance:
	@scripts/conformance

# LLVM goes inside target/, and CUDA's feature set into a target folder of its own. LLVM needs C++'s library, which small
# systems lack: from a folder with only the archive of it the linker takes that (-static-libstdc++ does not concern what
# is asked for by name, as here). The path is relative to where cargo links this workspace's programs.
STATIC_CXX := target/static-cxx
CUDA_ENV = XDG_DATA_HOME="$(CURDIR)/target/llvm" CARGO_TARGET_DIR="$${CUDA_TARGET_DIR:-$(CURDIR)/target-cuda}" \
  RUSTFLAGS="$${RUSTFLAGS:-} -L native=$(STATIC_CXX)"

$(STATIC_CXX)/libstdc++.a:
	@mkdir -p $(@D)
	@ln -sf "$$($(CXX) -print-file-name=libstdc++.a)" $@

cuda-check cuda: $(STATIC_CXX)/libstdc++.a

cuda-check:
	@scripts/get-llvm
	$(CUDA_ENV) $(CARGO) clippy $(PROFILE) -p trainer --features cuda --all-targets -- -D warnings

cuda:
	@scripts/get-llvm
	$(CUDA_ENV) $(CARGO) build $(PROFILE) -p trainer --features cuda
	scripts/cuda-smoke "$${CUDA_TARGET_DIR:-target-cuda}"/release
