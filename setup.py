from setuptools import find_packages, setup
setup(name='dynconv-mm', version='0.1.0', packages=find_packages(include=('dynconv_mm*',)))
