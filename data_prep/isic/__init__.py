"""ISIC 2018 and 2019: from the challenge's files to images and splits that can be trained on.

``archive`` reads what the challenge ships, ``splits`` keeps the images of one lesion together,
``images`` does the work on one image, ``prepare`` does it for all of them, ``synthetic`` makes a small
archive of the same form for those who do not have the real one.

Nothing is imported here: the worker processes import ``images`` alone, and stay small.
"""
