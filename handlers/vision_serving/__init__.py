"""The vision core: images in, predictions out, on any backend, with or without TorchServe. Every archive has it.

In the order of a request:

    requests/       what a client sent: images, options, wishes for the answer
    pictures/       encoded images become pixels at model size
    graphs/         what an artifact computes
    backends/       what runs an artifact, one file for each runtime
    results/        outputs become predictions
    explaining/     heat maps of what speaks for a class
    answers/        predictions become the bytes of an answer
    batching.py     prepared images through the model; a batch that fails is halved
    handler.py      the flow of a request: load, predict, explain
    worker/         TorchServe's side of it

What all of them stand on:

    errors.py, foreign_errors.py    our errors, and what becomes of everyone else's
    config.py, options.py           what an archive and a request may say; validation.py says what is wrong with it
    predictions.py, geometry.py     the answers for an image, and where it lies in model pixels
    labels.py, timings.py           class names, and the time of each stage
    log_lines.py                    anyone's text for a log
    cores.py                        the cores and the CPU of this machine
    source_constants.py             what a backend's file states, read without importing it
"""
