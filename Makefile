# make demo [DATA=folder [LABELS="liver=1 liver_tumor=2"]] [OUT=demo_out]
#             the whole way on a phantom, or on your CT scans, on a CPU (difftumor demo --help)
# make picture
#             synthetic tumors in a phantom (or in your scans, DATA=folder), without training: in less than two minutes
# make test   the tests, in two processes
# make docs   the documentation as a site: site/index.html, made without a network; its search wants a server
#             (python -m http.server -d site)
# make package
#             wheel and source distribution in dist/, checked; the wheel installed beside the dependencies, and tried
# make package-alone
#             before a release, that too: the wheel and what it asks for, with an extra, in an empty environment, and tried
# make lint   ruff; then, on the package as it is installed, the layers of its imports and the types of its functions
# make test-long
#             those that take long by nature, before a release; the code that they try has shorter tests in `make test`
# make test-faults
#             every fault of live training once through nnUNetv2_train (half an hour, not in CI); its output is kept in
#             tests/faults/log.txt
#
# Each makes the virtual environment $(VENV) if there is none. PYTHON names the interpreter it is made with (3.11 to
# 3.13). PyPI's torch for Linux is the CUDA build, which also runs on a CPU but is a large download; for the small one:
#   make demo TORCH_INDEX=https://download.pytorch.org/whl/cpu

PYTHON ?= python3
VENV ?= .venv
OUT ?= demo_out
DATA ?=
LABELS ?=
TORCH_INDEX ?=

PIP_OPTIONS := -c constraints.txt $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))
# The doctor asks for nnU-Net's folders; tests and demo bring their own.
NNUNET_FOLDERS := nnUNet_raw=$(VENV)/nnunet/raw nnUNet_preprocessed=$(VENV)/nnunet/preprocessed \
	nnUNet_results=$(VENV)/nnunet/results

# Where the public functions and what they take and give are defined.
TYPED := __init__.py synthesis/scans synthesis/spec.py synthesis/organ.py evaluation/evaluate.py \
	evaluation/comparing/compare.py evaluation/crossval.py evaluation/reporting/report.py \
	evaluation/postprocessing/postprocess.py experiments/experiment.py \
	evaluation/reconstruction/reconstruct.py preparation/prepare.py preparation/lesion_bank.py pictures/preview.py \
	pictures/replay.py runs/monitor.py trainers/export.py demonstration/demo.py dataset_conversion/convert.py

# Containers often set it; hundreds of short processes would then compile the same modules again.
unexport PYTHONDONTWRITEBYTECODE

# A copy of the package in the current folder would be taken instead.
TRY_INSTALLED = mkdir -p $(FRESH)/raw $(FRESH)/preprocessed $(FRESH)/results && cd $(FRESH) && \
	export nnUNet_raw=raw nnUNet_preprocessed=preprocessed nnUNet_results=results && \
	bin/python -c 'import nnunet_difftumor; print(nnunet_difftumor.__file__)' | grep -F "$(FRESH)" && \
	bin/difftumor doctor --fix && bin/difftumor demo --no-training --out demo

.PHONY: demo picture docs test lint package package-alone test-long test-faults
.DELETE_ON_ERROR:

demo: $(VENV)/ready
	$(VENV)/bin/difftumor demo --out "$(OUT)" $(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels $(LABELS))

picture: $(VENV)/ready
	$(VENV)/bin/difftumor demo --no-training --out "$(OUT)" $(if $(DATA),--data "$(DATA)") $(if $(LABELS),--labels $(LABELS))

docs: $(VENV)/ready
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/python -m mkdocs build --strict

# One thread each: two processes with two threads each would spend a third of the time waiting for one another.
test: export OMP_NUM_THREADS := 1
test: $(VENV)/ready
	$(VENV)/bin/python -m pytest tests -n 2 --dist loadfile --no-loadscope-reorder --ignore tests/kernels/interpreted \
		--ignore tests/faults -m "not long"
	TRITON_INTERPRET=1 $(VENV)/bin/python -m pytest tests/kernels/interpreted -n 2 -m "not long"

test-long: export OMP_NUM_THREADS := 1
test-long: $(VENV)/ready
	$(VENV)/bin/python -m pytest tests -n 2 --dist load --ignore tests/kernels/interpreted -m long
	TRITON_INTERPRET=1 $(VENV)/bin/python -m pytest tests/kernels/interpreted -n 2 -m long -s

test-faults: SHELL := /bin/bash
test-faults: $(VENV)/ready
	set -o pipefail; (git log -1 --format="commit %h, %ad" --date=iso; OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE \
		$(VENV)/bin/python -m pytest tests/faults -v --no-header --durations=20) | tee tests/faults/log.txt

lint: $(VENV)/ready
	$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check .
	rm -rf build/lib build/installed
	$(VENV)/bin/python -m pip install --quiet --no-deps --no-build-isolation --target build/installed .
	cd build/installed && PYTHONPATH=. $(abspath $(VENV))/bin/lint-imports --no-logo --no-cache ../../pyproject.toml
	cd build/installed && $(abspath $(VENV))/bin/mypy --config-file ../../pyproject.toml --cache-dir ../mypy \
		$(TYPED:%=nnunet_difftumor/%) ../../tests/typing/public_api.py

FRESH := build/fresh
package: $(VENV)/ready
	rm -rf dist $(FRESH)
	$(VENV)/bin/python -m build --no-isolation --outdir dist .
	$(VENV)/bin/python -m twine check --strict dist/*
	$(VENV)/bin/python -m venv --without-pip $(FRESH)
	$(VENV)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > \
		"$$($(FRESH)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/dependencies.pth"
	$(VENV)/bin/python -m pip --python $(FRESH) install --quiet --no-deps --ignore-installed dist/*.whl
	$(VENV)/bin/python -m pip --python $(FRESH) check
	$(TRY_INSTALLED)

package-alone: package
	rm -rf $(FRESH)
	$(VENV)/bin/python -m venv $(FRESH)
	$(FRESH)/bin/python -m pip install --quiet --no-compile $(PIP_OPTIONS) "$$(echo dist/*.whl)[backbones]"
	$(TRY_INSTALLED)

$(VENV)/ready: setup.py pyproject.toml constraints.txt nnunet_difftumor.pth
	@$(PYTHON) -c 'import sys; sys.exit(None if (3, 11) <= sys.version_info < (3, 14) else \
		"Python 3.11 to 3.13 is needed, and $(PYTHON) is " + sys.version.split()[0] + ": name another, PYTHON=python3.11")'
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install $(PIP_OPTIONS) -e ".[test]"
	mkdir -p $(VENV)/nnunet/raw $(VENV)/nnunet/preprocessed $(VENV)/nnunet/results
	$(NNUNET_FOLDERS) $(VENV)/bin/difftumor doctor --fix
	touch $@
