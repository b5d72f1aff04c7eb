# CPU (the default):  docker build -t unfade .
# NVIDIA:             docker build -t unfade:cuda --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#                     docker run --gpus all ...
# A folder:           docker run --rm -v "$PWD:/data" unfade restore photos --out restored
# The page:           docker run --rm --network host -v "$PWD:/data" unfade app --work work
ARG BASE=python:3.12-slim-bookworm
FROM ${BASE}

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=app,video
ENV PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1 HOME=/tmp

# torch first: this layer is by far the largest, and stays when only unfade changes
RUN python -m pip install --index-url "${TORCH_INDEX}" "torch>=2.10,<3"

COPY pyproject.toml README.md LICENSE NOTICE /opt/unfade/
COPY src /opt/unfade/src
RUN python -m pip install "/opt/unfade[${EXTRAS}]"

USER 1000
WORKDIR /data
ENTRYPOINT ["unfade"]
CMD ["--help"]
