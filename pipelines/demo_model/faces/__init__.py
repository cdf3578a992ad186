"""Labelled synthetic faces: a 3-D head with random features, hair, clothes and light, photographed at random.

`face.render` is the way from a seed to an image and its labels; every other module knows one step of it.
Lengths are decimetres; colours are linear light until the photo is developed.
"""
