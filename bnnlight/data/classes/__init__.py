"""Pictures with classes: digits, Fashion-MNIST, CIFAR, and any folder of class folders.

``data_module.py`` has the base, `ClassificationDataModule`. ``digits.py``, ``vision.py`` and ``image_folder.py`` have
the data modules that `bnnlight.data` names. ``folders.py`` reads class folders, with errors that name the folder or
the file; ``splits.py`` holds images out: stratified, and the same in every run.
"""
