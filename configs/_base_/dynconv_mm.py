# imports the package, which registers its layers, backbones, heads and hooks
custom_imports = dict(imports=['dynconv_mm'], allow_failed_imports=False)
