"""A server of ours to be hurt: its archives, its traffic, what is claimed of it and what was found.

archives.py               the digits classifier, packed to fail on demand
faulty_classification.py  its entry file: a colour makes it fail
world.py                  the running server, its good requests, its processes
traffic.py                requests at random times, each answer judged
raw_http.py               HTTP byte for byte: odd, cut, endless, slow
offline.py                runs of predict_images.py, timed and watched
ray_serving.py            an archive served by TorchServe and by Ray Serve, measured
tracing.py                what a worker's lines and spans cost it
span_receiver.py          who takes the spans meanwhile, or never answers
counting.py               what counting for metrics costs it
kept_predictions.py       what samples of predictions cost it
installing.py             what an environment takes, by its own Python
sampling.py               memory and descriptors over time
rounds.py                 the results file of a command that measures in rounds
findings.py               the rows of the reliability page, and the results file of each
"""
