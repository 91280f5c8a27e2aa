"""The build backend: setuptools, with this directory on the path so that it finds `build_native`."""

from setuptools.build_meta import *  # noqa: F403
