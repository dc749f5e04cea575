"""Other servers beside ours: started with the same model, asked the same pictures.

servers/           one folder a server: serve.py, requirements.txt, peer.yaml
peers.py           install, start, probe and stop one of them
contest.py         several of them beside ours, awake in turns
peer_arguments.py  the command line of every serve.py
peer_servers.py    the models that every serve.py can serve
trivial_server.py  a server that does next to nothing: how fast is the client?
measuring.sh       what measure_performance.sh and gpu/run.sh share
"""
