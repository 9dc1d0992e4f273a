# make demo: set up and train CAWR on the bundled dataset; make test: the test suite, with the newest versions that
# setup.py allows; make test-oldest: the same with the oldest ones; make test-slow: kills and fuzzing at size; make docs:
# the documents as a site in site/; make lint: ruff, the direction of imports, and whether the documents build.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
OLDEST := .venv-oldest
# A worker a core, each with one thread; a worker takes over tests that wait for another.
PYTEST = OMP_NUM_THREADS=1 $(1)/python -m pytest -n auto --dist worksteal
MKDOCS = NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

.PHONY: demo test test-slow test-oldest docs lint clean

demo: $(VENV)/installed
	$(BIN)/ding -m serial_offline -c config/hopper_bundled_cawr.py -s 0

test: $(VENV)/tests_installed
	$(call PYTEST,$(BIN))

test-slow: $(VENV)/tests_installed
	$(call PYTEST,$(BIN)) -m slow

test-oldest: $(OLDEST)/tests_installed
	$(call PYTEST,$(OLDEST)/bin)

docs: $(VENV)/lint_installed
	$(MKDOCS)

lint: $(VENV)/lint_installed
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	site=$$(mktemp -d) && $(MKDOCS) --quiet --site-dir $$site; status=$$?; rm -rf $$site; exit $$status

clean:
	rm -rf $(VENV) $(OLDEST) site

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade "pip>=24"
	$(BIN)/python -m pip install -e .
	touch $@

$(VENV)/lint_installed: $(VENV)/installed
	$(BIN)/python -m pip install -e '.[docs,lint]'
	touch $@

# The tests compare with the real d4rl package; its dependencies are mujoco-py's and are not needed for that.
$(VENV)/tests_installed: $(VENV)/installed
	$(BIN)/python -m pip install -e '.[test]'
	$(BIN)/python -m pip install --no-deps d4rl==1.1
	touch $@

# Of what setup.py names the oldest version each; of what those need, whatever fits.
$(OLDEST)/tests_installed: setup.py
	$(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --upgrade "pip>=24" uv
	$(OLDEST)/bin/uv pip install --python $(OLDEST)/bin/python --resolution lowest-direct -e '.[test]'
	$(OLDEST)/bin/python -m pip install --no-deps d4rl==1.1
	touch $@
