"""People and their joints: keypoints of anything in COCO's form, MPII, Leeds Sports Pose, drawn people.

``data_module.py`` has the base, `PoseDataModule`; ``coco.py``, ``mpii.py``, ``lsp.py`` and ``people.py`` have the data
modules that `bnnlight.data` names. ``coco_files`` reads COCO's files; ``mpii_json.py``, ``mpii_heads.py`` and
``mpii_release.py`` read MPII's. ``person.py`` says what a person in a picture is; ``annotations.py`` has all people of
a file, ``checks.py`` checks them, ``pictures.py`` reads their pictures. ``transforms.py`` cuts a person out: one warp
of the pixels, one of the colours; ``heatmaps.py`` makes targets of joints, and joints of heat maps. ``sheet.py`` draws
annotated crops; ``figures`` draws people.
"""
