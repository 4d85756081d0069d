"""From a data set to batches: what data with classes and data with joints share.

``loaders.py`` has the base of all data modules, with batches and workers; ``train_loader.py`` resumes an epoch in its
middle. ``sampling.py`` says which pictures a process sees, in which order, with which random numbers. ``views.py``
shows items through a transform, and ``transforms.py`` makes network inputs of pictures. ``by_value.py`` copies small
tensors from the workers, instead of sharing them; ``worker_signals.py`` handles stops and lost workers.
``bad_images.py`` leaves out what cannot be read; ``checking.py`` reads a whole data set once, and ``files.py`` tells an
item's file.
"""
