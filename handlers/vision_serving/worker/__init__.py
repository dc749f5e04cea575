"""TorchServe's side: what a worker process does around the flow of a request.

service.py              initialize and handle: the class that an entry file extends
receiving.py            a body comes straight into memory of its length
guard.py                a watchdog, a bound of memory, an end after the last answer
metrics.py              counts and times, in files that an exporter sums
sampling.py             a few predictions are kept, to be compared with those of the verification
sample_settings.py      of which requests, how many, how long
sample_records.py       what is kept of a request
sample_files.py         the ring of files that holds them
explanation_budget.py   the share of its time that explanations may take
correlation.py          a request's id, its caller's trace, when the front had it
failure_log.py          a line for each request that failed
tracing.py              spans of the requests whose callers record a trace
span_export.py          how they are sent: the file that needs OpenTelemetry
draining.py             requests are refused and workers keep still before a server or worker ends
server_settings.py      what config.properties says to a worker
model_card.py           what an archive says of itself
"""
