# make demo: set up and train CAWR on the bundled dataset; make test: the whole test suite; make lint: ruff.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo test lint clean

demo: $(VENV)/installed
	$(BIN)/ding -m serial_offline -c config/hopper_bundled_cawr.py -s 0

test: $(VENV)/tests_installed
	$(BIN)/python -m pytest

lint: $(VENV)/tests_installed
	$(BIN)/ruff check .

clean:
	rm -rf $(VENV)

$(VENV)/installed: setup.py
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --upgrade "pip>=24"
	$(BIN)/python -m pip install -e .
	touch $@

# The tests compare with the real d4rl package; its dependencies are mujoco-py's and are not needed for that.
$(VENV)/tests_installed: $(VENV)/installed
	$(BIN)/python -m pip install -e '.[test]'
	$(BIN)/python -m pip install --no-deps d4rl==1.1
	touch $@
