"""The same archives behind the same HTTP contract by Ray Serve, without TorchServe. Ray is imported only here.

configuration.py   config.properties and its archives -> a configuration of Serve
deploying.py       a configuration, deployed; an upgrade that waits for the golden prediction
application.py     what the configuration names: the application of a model, and of the ingress
replica.py         a process with one archive, run by the archive's own code
batching.py        its requests, put together in batches
ingress.py         the HTTP side: keys, limits, health and metadata
listening.py       its HTTP server
pool.py            the replicas of a model: the least busy one, a second try, a queue
channel.py         how an ingress asks a replica: a connection of their own, and messages on it
exchange.py        what is asked, and answered, and the context of a handler
shelf.py           archives on demand: loaded when asked for, put away when others need their memory
loaded_archive.py  the process of such an archive
names.py           of the applications and deployments
routes.py          which route a path is
forms.py           a body of HTTP -> a request as TorchServe gives it to handlers
models.py          which versions are served, and which is the default
metadata.py        what V2 says of a model's tensors
refusals.py        errors of the ingress, in our own form
"""
