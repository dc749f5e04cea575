"""The same archive on many machines: Ray. Imported only where Ray is asked for.

connecting.py    a cluster of this machine alone, or one that is there
ray_worker.py    a process of the cluster that has the model loaded, and its handle here
ray_engine.py    chunks of pictures -> shards, by such processes
"""
