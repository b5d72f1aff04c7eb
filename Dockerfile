# Processor and NVIDIA:  docker build -t unfade .
# Processor only, 5 GB smaller; ADDRESS is that of the CPU builds on PyTorch's own site:
#                        docker build -t unfade --build-arg PIP_EXTRA_INDEX_URL=ADDRESS .
# A folder:              docker run --rm [--gpus all] -v "$PWD:/data" unfade restore photos --out restored
# The page:              docker run --rm --network host -v "$PWD:/data" unfade app --work work
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

# pip reads it from the environment while the image is built
ARG PIP_EXTRA_INDEX_URL
ARG EXTRAS=app,video
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HOME=/tmp

# torch first: this layer is by far the largest, and stays when only unfade changes
RUN python -m pip install "torch>=2.10,<3"

COPY pyproject.toml README.md LICENSE NOTICE /opt/unfade/
COPY src /opt/unfade/src
# what pip builds on the way is another 100 MB
RUN python -m pip install "/opt/unfade[${EXTRAS}]" && rm -r /opt/unfade/build

USER 1000
WORKDIR /data
ENTRYPOINT ["unfade"]
CMD ["--help"]
