# Every target works on a fresh clone: it makes what it needs first.

.DEFAULT_GOAL := help
.PHONY: help setup setup-inf1 inference test test-browser test-inf1 test-lowest lint bench deploy-check package requirements clean
.DELETE_ON_ERROR:

ENCODER = auto
INPUT = input_images
OUTPUT = output_depth
ARGS =
NEURON = run

# uv from PATH if it runs and is new enough (it may be a pyenv shim that fails), else one installed into the project.
UV := $(shell uv cache dir >/dev/null 2>&1 && command -v uv || echo .uv/bin/uv)
# uv trusts the machine's certificates, not only those built into it: a company's proxy or mirror has its own.
ifneq ($(wildcard /etc/ssl/cert.pem /etc/ssl/certs/ca-certificates.crt /etc/pki/tls/certs/ca-bundle.crt),)
export UV_SYSTEM_CERTS ?= true
endif
# The Pythons to develop on, best first; tests and figures are stated for 3.11.
PYTHONS = 3.11 3.12 3.13 3.14 3.10
PYTHON =
PYTHON39 =
# An environment for each Python that is named: .venv, or .venv-3.13 with PYTHON=3.13.
VENV := .venv$(if $(PYTHON),-$(subst /,_,$(PYTHON)))
BIN = $(VENV)/bin
READY = $(VENV)/.ready
PINS = pyproject.toml depthcli/version.py requirements/venv.sh

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-14s%s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo "  make inference ENCODER=vitb INPUT=photos OUTPUT=depths ARGS='...'   (ARGS is passed on by inference, test, bench)"
	@echo "  make test PYTHON=3.13           with another Python than the first found of $(PYTHONS), in .venv-3.13; for test-inf1: PYTHON39=path"
	@echo "  UV_TORCH_BACKEND=cu130 make setup   a build of torch; default: the CPU build if there is no NVIDIA driver, else CUDA"
	@echo "  UV_FIND_LINKS=DIR make setup        wheels from a directory; a CPU build of torch is also looked for in pip's find-links"
	@echo "  Other settings of uv (UV_DEFAULT_INDEX, UV_CACHE_DIR, ...) are honoured; more in requirements/venv.sh"

setup: uv.lock $(READY) ## environment in .venv (with PYTHON=3.13 in .venv-3.13) from the pinned requirements/dev.txt, and uv.lock

inference: $(READY) ## depth maps of all pictures in INPUT (input_images) into OUTPUT (output_depth)
	$(BIN)/depth dir "$(INPUT)" -o "$(OUTPUT)" --encoder "$(ENCODER)" $(ARGS)

# A test process for each core, those that are done help the others.
WORKERS = -n auto --dist worksteal

test: $(READY) ## the test suite
	$(BIN)/python -m pytest $(WORKERS) $(ARGS)

# Two processes: a Chromium with software WebGL takes a core.
test-browser: $(READY) ## the tests of pages in Chromium, which root gets by apt-get if it is missing; skipped without one
	@if requirements/chromium.sh; then \
	  $(BIN)/python -c 'import playwright' 2>/dev/null || $(UV) pip install --quiet --python $(VENV) --group browser || exit 1; \
	  $(BIN)/python -m pytest -n 2 --dist loadfile tests/serve/browser tests/io/points/test_page_browser.py \
	    tests/io/scenes/test_page_browser.py tests/io/video/test_clip_page.py $(ARGS); fi

test-inf1: .venv-inf1/.ready ## the test suite on what an AWS Inf1 machine has: Python 3.9, torch 1.13.1, numpy 1.22
	.venv-inf1/bin/python -m pytest $(WORKERS) $(ARGS)

# Packages this old raise warnings about each other.
test-lowest: .venv-lowest/.ready ## the test suite on the oldest packages that pyproject.toml admits, with Python 3.10
	.venv-lowest/bin/python -m pytest -W default $(WORKERS) $(ARGS)

lint: $(READY) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(READY) ## speed and memory of the backends, side by side
	$(BIN)/depth bench $(ARGS)

deploy-check: $(READY) .venv-deploy/.ready ## check what lies in deploy/, with buildah and systemd-analyze if they are here; IMAGE=no builds no image
	PATH="$(CURDIR)/.venv-deploy/bin:$$PATH" DEPTH="$(CURDIR)/$(BIN)/depth" deploy/check.sh

package: $(READY) ## wheel and sdist in dist/, and a look at what is in the wheel
	rm -rf dist
	$(BIN)/python -m hatchling build
	@$(BIN)/python -m zipfile --list dist/*.whl | awk 'NR > 1 {print $$1}' > dist/contents
	@for file in depthcli/py.typed depthcli/assets/tiny.safetensors; do \
	  grep -qx "$$file" dist/contents || { echo "missing in the wheel: $$file"; exit 1; }; done
	@! grep -v -e '^depthcli/' -e '^depthcli-[^/]*\.dist-info/' dist/contents || { echo "these do not belong in the wheel"; exit 1; }
	$(UV) pip install --quiet --python $(VENV) --no-deps --target dist/installed dist/*.whl
	cd dist/installed && PYTHONPATH=. ../../$(BIN)/python -m depthcli --help > /dev/null

requirements: | $(UV) ## resolve anew, up to exclude-newer in pyproject.toml, and write requirements/*.txt
	$(RESOLVE) lock --quiet --upgrade
	$(RESOLVE) export --quiet --frozen --format requirements.txt --all-extras --no-extra ray --all-groups --no-group browser --no-emit-project --no-annotate --no-header \
	  > requirements/dev.all
	$(call split,dev)
	$(RESOLVE) export --quiet --frozen --format requirements.txt --no-default-groups --group torch --extra serve --extra heif --extra s3 \
	  --extra gcs --no-emit-project --no-annotate --no-header > requirements/image.all
	$(call split,image)
	{ echo '$(MADE)'; $(RESOLVE) export --quiet --frozen --format requirements.txt --only-group build --no-emit-project --no-annotate \
	  --no-header; } > requirements/build.txt
	$(RESOLVE) pip compile --quiet --python-version 3.9 --python-platform x86_64-manylinux_2_17 --only-binary av --no-python-downloads \
	  --generate-hashes --no-annotate --no-header --extra heif --group test --group build \
	  pyproject.toml requirements/inf1.in > requirements/inf1.all
	$(call split,inf1)
	$(RESOLVE) pip compile --quiet --resolution lowest-direct --python-version 3.10 --python-platform x86_64-manylinux_2_28 \
	  --only-binary :all: --no-python-downloads --generate-hashes --no-annotate --no-header --extra heif --extra las --extra onnx \
	  --group test --group build pyproject.toml > requirements/lowest.all
	$(call split,lowest)
	{ echo '$(MADE)'; $(RESOLVE) pip compile --quiet --generate-hashes --no-annotate --no-header requirements/uv.in; } \
	  > requirements/uv.txt
	{ echo '$(MADE)'; $(RESOLVE) pip compile --quiet --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  requirements/deploy.in; } > requirements/deploy.txt

clean: ## remove what the other targets make, except the depth maps in output_depth
	rm -rf .venv .venv-* .uv uv.lock dist .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# A resolution must be the same everywhere, so local wheels and backends are left out.
RESOLVE = env -u UV_FIND_LINKS -u UV_TORCH_BACKEND $(UV)
MADE = \# Made by `make requirements`; edit pyproject.toml or the .in files instead.
# requirements/X.all into X.txt, and X-cuda.txt for what only a CUDA build of torch needs.
define split
	@printf '%s\n' '$(MADE)' > requirements/$(1).txt
	@printf '%s\n' '$(MADE)' '# Only what a CUDA build of torch needs, in addition to $(1).txt.' > requirements/$(1)-cuda.txt
	@awk '/^[A-Za-z0-9]/ {out = "requirements/$(1)" (/^(triton|nvidia-[a-z0-9-]+|cuda-[a-z]+)==/ ? "-cuda" : "") ".txt"} {print >> out}' \
	  requirements/$(1).all
	@rm requirements/$(1).all
endef

$(READY): $(wildcard requirements/dev*.txt) $(PINS) | $(UV)
	@UV=$(UV) PYTHON=$(PYTHON) requirements/venv.sh $(VENV) dev $(PYTHONS)
	@touch $@

.venv-inf1/.ready: $(wildcard requirements/inf1.txt requirements/inf1-cuda.txt) $(PINS) | $(UV)
	@UV=$(UV) PYTHON=$(PYTHON39) requirements/venv.sh .venv-inf1 inf1 3.9
	@touch $@

.venv-lowest/.ready: $(wildcard requirements/lowest.txt requirements/lowest-cuda.txt) $(PINS) | $(UV)
	@UV=$(UV) PYTHON= requirements/venv.sh .venv-lowest lowest 3.10
	@touch $@

.venv-deploy/.ready: requirements/deploy.txt | $(UV)
	@$(UV) venv --quiet --clear --python 3.11 .venv-deploy
	@$(UV) pip install --quiet --python .venv-deploy --require-hashes -r requirements/deploy.txt
	@touch $@

setup-inf1: .venv-inf1/.ready ## torch-neuron from AWS into .venv-inf1, to run networks on an Inf1 machine; NEURON=compile to compile them
	$(UV) pip install --quiet --python .venv-inf1 -r requirements/inf1-$(NEURON).txt

uv.lock: pyproject.toml | $(UV)
	@$(RESOLVE) lock --quiet
	@touch $@

# Any Python with venv and pip will do. `command -v` would not help: it also finds pyenv shims that fail.
.uv/bin/uv: requirements/uv.txt
	@for python in python3 $(PYTHONS:%=python%) "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/3.1*/bin/python; do \
	  rm -rf .uv; \
	  if "$$python" -m venv .uv 2>/dev/null && .uv/bin/python -m pip install -qq --require-hashes -r requirements/uv.txt; then break; fi; \
	done; \
	test -x $@ || { echo "uv is missing and could not be installed: no Python here with venv and pip. See https://docs.astral.sh/uv"; exit 1; }
	@touch $@
