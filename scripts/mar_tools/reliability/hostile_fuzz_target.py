"""What atheris drives: python -m mar_tools.reliability.hostile_fuzz_target CORPUS [options of libFuzzer]."""

import sys

import atheris

with atheris.instrument_imports(include=["vision_serving", "PIL"]):
    from mar_tools.reliability.hostile_attempts import attempt

if __name__ == "__main__":
    atheris.Setup(sys.argv, attempt)
    atheris.Fuzz()
