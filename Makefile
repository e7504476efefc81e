# make demo | test | drills | lint | docs | qpi | slow | gpu | nwq-sim | clean. Each sets up .venv first; the second time that is instant.
PYTHON_BIN := .venv/bin
# Tests mostly wait: two processes more than a small machine has cores. Drills wait for longer.
TEST_PROCESSES ?= 4
DRILL_PROCESSES ?= 5

.PHONY: demo test pytest drills lint docs qpi slow gpu nwq-sim clean
.DEFAULT_GOAL := demo

demo:
	@scripts/setup.sh all
	@$(PYTHON_BIN)/simenv demo

lint:
	@scripts/setup.sh all,test
	$(PYTHON_BIN)/ruff check .
	$(PYTHON_BIN)/ruff format --check .
	$(PYTHON_BIN)/python scripts/unconnected_groups.py
	$(PYTHON_BIN)/mypy
	cd distributions/simenv-myqlm && $(CURDIR)/$(PYTHON_BIN)/mypy
	$(PYTHON_BIN)/lint-imports
	$(PYTHON_BIN)/python scripts/licenses.py

test:  # both at once: tests mostly wait
	@scripts/setup.sh all,test
	@$(MAKE) --no-print-directory -j 2 lint pytest

pytest:
	@TEST_PROCESSES=$(TEST_PROCESSES) scripts/test.sh

drills:
	@scripts/setup.sh all,test
	@TEST_PROCESSES=$(DRILL_PROCESSES) scripts/test.sh drills

docs:
	@scripts/setup.sh all,docs
	NO_MKDOCS_2_WARNING=1 $(PYTHON_BIN)/python -m mkdocs build --strict
	@echo "python3 -m http.server --directory build/site    # or open build/site/index.html"

qpi:
	@scripts/setup.sh all
	@$(PYTHON_BIN)/simenv qpi build build/qpi

slow:
	@scripts/setup.sh all,test
	$(PYTHON_BIN)/python -m pytest -m slow
	$(PYTHON_BIN)/python -m pytest -m "hypothesis and not gpu" --hypothesis-profile slow
	@scripts/audit.sh

gpu:
	@scripts/setup.sh all,test
	$(PYTHON_BIN)/python scripts/check_kernels.py
	$(PYTHON_BIN)/python -m pytest -m gpu tests/gpu

nwq-sim:  # the documented command runs the real program, which is built first
	@scripts/setup.sh all,test
	scripts/nwq_sim.sh .venv/var/nwq-sim
	PATH="$(CURDIR)/.venv/var/nwq-sim:$$PATH" $(PYTHON_BIN)/python -m pytest tests/e2e/test_external.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
