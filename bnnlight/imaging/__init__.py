"""Pictures around a network, in numpy, Pillow and OpenCV alone: what goes in, and what is drawn of what comes out.

Training and shipped models share this folder, so it imports neither torch nor Lightning.

====================== ===================================================================
``skeletons.py``       names of joints, sides, limbs
``pose_pictures.py``   skeletons drawn into pictures
``class_pictures.py``  pictures with the classes that a network names below them
====================== ===================================================================
"""
