# `make demo` and `make test` need Python 3.11, a C++ compiler and a package registry, nothing else.
PYTHON ?= python3
STACK ?= official
VENV ?= .venv-$(STACK)
BIN = $(VENV)/bin
PYTEST = PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 pytest tests
PYTEST_ARGS ?= -n auto --dist loadgroup
# what must have docstrings
DOCUMENTED = dynconv_mm dynconv_mm_scope tools scripts docs setup.py

# of each demo: what it trains, its config, its folder, and the file that says how many epochs it trains
demo: DEMO_MODEL = small ODConv Faster R-CNN
demo-panoptic: DEMO_MODEL = small DCDC PanopticFPN
demo: DEMO_CONFIG = configs/demo/faster-rcnn_odconv1x-r18-thin_fpn_digits.py
demo: DEMO_DIR = work_dirs/demo
demo: DEMO_SCHEDULE = configs/_base_/digits_detection.py
demo-panoptic: DEMO_CONFIG = configs/demo/panoptic-fpn_dcdc-r26-thin_dcdc-fpn_digits.py
demo-panoptic: DEMO_DIR = work_dirs/demo-panoptic
demo-panoptic: DEMO_SCHEDULE = $(DEMO_CONFIG)
DEMO_DATA = data/digits
DEMO_CHECKPOINT = $(DEMO_DIR)/epoch_$(shell sed -n 's/^max_epochs = //p' $(DEMO_SCHEDULE)).pth

# Keep freed memory instead of giving it back to the kernel and faulting it in again at every step: with glibc
# this makes training on the CPU up to 1.7 times as fast. Without effect elsewhere.
DEMO_ENV = PATH="$(abspath $(BIN)):$$PATH" MALLOC_MMAP_THRESHOLD_=1000000000 MALLOC_TRIM_THRESHOLD_=2000000000 \
	MALLOC_TOP_PAD_=100000000

define run-demo
$(BIN)/python tools/dataset_converters/make_digits_coco.py $(DEMO_DATA)
@test -f $(DEMO_CHECKPOINT) || $(DEMO_ENV) python tools/train.py $(DEMO_CONFIG) --work-dir $(DEMO_DIR) --resume --quiet
@test -d $(DEMO_DIR)/test || { $(DEMO_ENV) python tools/test.py $(DEMO_CONFIG) $(DEMO_CHECKPOINT) \
	--work-dir $(DEMO_DIR)/test.partial --quiet && mv $(DEMO_DIR)/test.partial $(DEMO_DIR)/test; }
@$(DEMO_ENV) python tools/analysis_tools/report_detections.py $(DEMO_CONFIG) $(DEMO_CHECKPOINT) \
	--test-dir $(DEMO_DIR)/test --out $(DEMO_DIR)/report
@echo "make $@: a $(DEMO_MODEL) was trained and tested on handwritten digits: $$(cat $(DEMO_DIR)/report/summary.txt);" \
	"look at $(DEMO_DIR)/report/index.html"
endef

.PHONY: help install environment demo demo-panoptic test test-all test-neighbours coverage lint docs clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)
	@echo 'STACK=official (default), onedl or classic picks the set of packages; PYTHON names a Python 3.11'

install:  ## a virtual environment with one tested set of packages, those for tests and lint too, and this package
	@$(PYTHON) scripts/install_stack.py --stack $(STACK) --venv $(VENV) --development

environment:  ## the same without what tests, lint and documentation need
	@$(PYTHON) scripts/install_stack.py --stack $(STACK) --venv $(VENV)

.PHONY: announcement
announcement:
	@echo "$(DEMO_DIR): what runs needs is installed (the first time some minutes, and 8 to 20 more where mmcv has to be" \
		"compiled); 2700 images are drawn, a $(DEMO_MODEL) trains on them (some ten minutes on two cores) and is" \
		"tested (a minute); then look at $(DEMO_DIR)/report/index.html"

demo: announcement environment  ## make data, train and test an ODConv detector, draw its detections
	@$(run-demo)

demo-panoptic: announcement environment  ## the same with a DCDC panoptic segmentor
	@$(run-demo)

test: install lint  ## the tests but the slow ones, in minutes
	@$(PYTEST) -m "not slow" $(PYTEST_ARGS)
	@echo "make test: the tests pass on the $(STACK) stack; make test-all runs the slow ones too"

test-neighbours: VENV = .venv-neighbours
test-neighbours: STACK = official
test-neighbours:  ## the tests of tests/neighbours, in an environment with the toolboxes that they are about
	@$(PYTHON) scripts/install_stack.py --stack $(STACK) --venv $(VENV) --development --neighbours
	@$(BIN)/python -c 'import mmpose.models, mmseg.models, timm, ultralytics'  # without which they would be skipped
	@PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 pytest tests/neighbours $(PYTEST_ARGS)
	@echo "make test-neighbours: the tests of tests/neighbours pass"

test-all: install lint  ## the whole test suite, before a release and in the workflows
	@$(PYTEST) $(PYTEST_ARGS)
	@echo "make test-all: the test suite passes on the $(STACK) stack"

coverage: install  ## the whole test suite again, with the share of lines that it runs; at least 90%
	@$(PYTEST) $(PYTEST_ARGS) --cov --cov-report=html --cov-report=term:skip-covered
	@echo "make coverage: line by line in work_dirs/coverage/index.html"

lint: install  ## ruff, and docstrings for all that is public
	@$(BIN)/ruff check .
	@$(BIN)/interrogate --quiet $(DOCUMENTED) || { $(BIN)/interrogate -vv $(DOCUMENTED); false; }

docs: install  ## the pages of docs/, the README and the API as a site; a broken link fails
	@$(BIN)/mkdocs build --strict
	@echo "make docs: look at work_dirs/site/index.html"

clean:  ## remove what the other targets made
	rm -rf .venv-* build *.egg-info .coverage* data/digits work_dirs/demo work_dirs/demo-panoptic work_dirs/site \
		work_dirs/coverage
