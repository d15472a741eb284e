"""One's own images: from a folder of photographs of any size to images and splits to train on.

``source`` finds the images, their classes and groups, ``images`` does the work on one of them,
``duplicates`` finds those that show the same, ``prepare`` does it all, ``report`` says what was found,
``example`` draws a small folder to try it on.

Nothing is imported here: the worker processes import ``images`` alone, and stay small.
"""
