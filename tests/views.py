"""Ways to look at the digits."""

VIEWS = {
    "as they are": {},
    "threshold": {"binarisation": "threshold"},
    "static": {"binarisation": "static"},
    "dynamic": {"binarisation": "dynamic"},
    "unit": {"scaling": "unit"},
    "standardise": {"scaling": "standardise"},
    "dequantise": {"scaling": "dequantise"},
}
