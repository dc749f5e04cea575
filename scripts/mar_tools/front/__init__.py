"""nginx in front of TorchServe, for clients of other machines: HTTPS, keys of clients, limits, retries.

master.py       when nginx's master process takes signals, and has followed one
nginx.py        finds an nginx with its JavaScript module, and runs it as an ordinary user
certificates.py makes a certificate for a first try
client_keys.py  gives and removes the keys of clients; only their SHA-256 is kept
machines.py     several machines behind one front: addresses, groups, readiness
settings.py     what front.yaml may say
templates.py    fills in the files of deploy/nginx
front_record.py tells the exporter of metrics where the front is
front.py        writes nginx's configuration, and starts, reloads and stops it
clouds.py       reads what SageMaker, Vertex AI and Azure ML tell a container, and writes settings for it
one_container.py runs a server and its front as children of one process
"""
