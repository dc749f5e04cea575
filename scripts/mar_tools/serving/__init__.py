"""One TorchServe: its settings, processes and API; how it is started, checked, changed and stopped.

In the order in which the files build on each other:

    before it runs
      address.py           reads where the server listens and writes
      state_option.py      lets commands name another folder for all that the server writes
      setting_names.py     knows the keys that TorchServe reads, and refuses others
      config_file.py       writes other values into config.properties; the rest of it stays as it is
      archive_choice.py    chooses the archives that the server can take, and says what is wrong with the others
      memory_bounds.py     derives how many bodies its memory takes at once, and refuses numbers that do not fit
      ports.py             finds free ports, and knows the five of a TorchServe
      start_checks.py      names what a start lacks: space, rights, open files, free ports, short paths
      java.py              finds a Java for TorchServe's frontend
      launching.py         runs the frontend with its environment, and says where its output goes
    while it runs
      processes.py         finds the frontend and the workers, whatever the shell, and ends them
      logs.py              reads why a start failed, or why a model cannot load
      start_record.py      keeps what a start found out, for the commands that come later
      torchserve_api.py    asks the server: predictions, models, workers, metrics, tokens
      model_status.py      tells versions and workers, and where they differ from config.properties
      health.py            asks every worker for the golden prediction of its archive
      java_counters.py     reads how long a Java has collected memory
      metrics_exporter.py  starts and mends the process beside it that shows its metrics
      watching.py          replaces a frontend that has ended, no longer answers, or does little but collect memory
    what is done to it
      server.py            starts it until every model answers, and stops it at once
      graceful_stop.py     stops it after its last answer; the workers' side is vision_serving.worker.draining
      service_units.py     fills in the units of systemd, and tells systemd how a service is
      foreground.py        runs it as the main process of a container or a service, until a signal or a fault
      scaling.py           changes the number of workers of a model, without a failed request
      request_counts.py    reads how many requests and failures TorchServe has counted
      upgrading.py         puts a new version in the place of the running one, and back when it fails
      upgrade_record.py    keeps the last upgrade of each model, so that it can be taken back
      upgrade_config.py    writes an upgrade into config.properties, so that a restart keeps it
      temporary_server.py  runs a server of its own in a temporary folder, for measurements and tests
"""
