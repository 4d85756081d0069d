"""One run, from its config to its result.

``experiment.py`` is the LightningCLI: a command line becomes model, data and trainer. ``config/`` checks the config
before anything is made of it; ``fit_checks.py`` and ``matrix_check.py`` check what was made. ``run_dir.py``,
``run_lock.py`` and ``save_config.py`` keep a run's directory; ``checkpoint_io.py``, ``own_files.py`` and
``finished.py`` say what is in its checkpoints and what becomes of them as it goes on. ``processes.py``,
``freed_memory.py`` and ``factories.py`` are about the processes that train, and ``report.py`` writes its results.
``trained/`` uses a trained network: to name classes, to find joints, to ship it.
"""
