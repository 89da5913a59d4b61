"""Packaging. The version lives in adapter_fast/__init__.py and is read, not imported: importing needs torch."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (HERE / "adapter_fast/__init__.py").read_text("utf-8"), re.M)[1]
README = HERE / "README.md"

TUNE = ["accelerate>=1.1", "click>=8", "rich>=13", "scikit-learn>=1.3"]
EXPERIMENTS = [*TUNE, "datasets>=3", "matplotlib>=3.8", "scipy>=1.10"]
BENCH = ["click>=8", "matplotlib>=3.8", "peft>=0.20", "pytest>=8", "pytest-benchmark>=5", "rich>=13"]
DEV = [
    "hypothesis>=6",
    "mypy>=1.11",
    "pytest>=8",
    "pytest-benchmark>=5",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    "ruff>=0.9",
    "setuptools>=64",
    "wheel",
]

# For those who build this, in a checkout: how pages are written, tiles found, and GPU commands rehearsed.
NOT_INSTALLED = [f"adapter_fast.benchmarks.{room}*" for room in ("pages", "tiles", "rehearse")]

setup(
    name="adapter_fast",
    version=VERSION,
    description="Houlsby bottleneck adapters for Hugging Face transformers, fused in one Triton kernel",
    long_description=README.read_text("utf-8") if README.exists() else "",
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # kernels/ has no __init__.py on purpose (see kernels/README.md), so find_packages does not see it.
    packages=[
        *find_packages(include=["adapter_fast", "adapter_fast.*"], exclude=NOT_INSTALLED),
        "adapter_fast.kernels",
        "adapter_fast.kernels.forms",
    ],
    package_data={
        "adapter_fast": ["py.typed"],
        "adapter_fast.kernels": ["tuned/*.json"],
        "adapter_fast.experiments": ["docs_questions/*.json"],
    },
    python_requires=">=3.10",
    install_requires=[
        "torch>=2.11",
        'triton>=3.6; platform_system == "Linux"',
        "transformers>=5.5",
        "safetensors>=0.4.3",
    ],
    extras_require={
        "tune": TUNE,
        "experiments": EXPERIMENTS,
        "bench": BENCH,
        "peft": ["peft>=0.21"],
        "vision": ["pillow>=10"],
        "dev": DEV,
    },
    entry_points={"console_scripts": ["adapter-fast=adapter_fast.cli:main"]},
    classifiers=[
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
