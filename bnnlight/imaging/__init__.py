"""Pictures before and after a network, in numpy, Pillow and OpenCV alone: its inputs, and drawings of its answers.

Training and shipped models share this folder, so it imports neither torch nor Lightning.

====================== ===================================================================
``reading.py``         pictures from files and arrays, as grey or RGB, held upright
``class_input.py``     a picture as the input of a classification network
``classes.py``         logits to the names of classes
``class_pictures.py``  pictures with the classes that a network names below them
``pose_crop.py``       a person cut out of a picture as the input of a pose network
``boxes.py``           people in boxes: the square that is cut out, all of a picture, their score
``box_files.py``       boxes in COCO's detection form, and the pictures of its annotations
``given_pictures.py``  which picture a box is in, and which boxes are looked at
``given_boxes.py``     what a command line gives of boxes, for each picture
``image_files.py``     image files in folders
``answers_json.py``    answers as JSON: bnnlight's own form, and COCO's results
``heatmaps.py``        heat maps to joints, and pixels of one to those of the other
``skeletons.py``       names of joints, sides, limbs
``joint_sides.py``     left and right told by the names of joints
``pose_pictures.py``   skeletons drawn into pictures
``answer_folder.py``   the folder that `bnnlight predict` writes: pictures and JSON
====================== ===================================================================
"""
