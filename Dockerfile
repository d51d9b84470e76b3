# docker build -t mbrl-flat .
# docker run --rm -v "$PWD/runs:/app/runs" mbrl-flat env.task=cartpole-swingup preset=cpu optimizer=sam
ARG BASE=python:3.11-slim-bookworm
FROM ${BASE}

# Rendering without a screen: EGL on a GPU, OSMesa without one.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libegl1 libosmesa6 libgl1-mesa-dri git \
    && rm -rf /var/lib/apt/lists/*
ENV MUJOCO_GL=egl PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1

RUN useradd --create-home --uid 1000 mbrl
WORKDIR /app
COPY requirements.lock ./
RUN pip install -r requirements.lock
COPY . .
RUN pip install --no-deps --no-build-isolation . && mkdir -p runs && chown -R mbrl /app
USER mbrl
VOLUME /app/runs
ENTRYPOINT ["mbrl-flat-train"]
