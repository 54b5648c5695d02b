"""Trainers and the like of packages that build their models anew, and so have to be told that they are dynamic."""
