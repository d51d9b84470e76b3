# docker build -t mbrl-flat .
# docker run --rm -v "$PWD/runs:/app/runs" mbrl-flat env.task=cartpole-swingup preset=cpu optimizer=sam
# Arguments, and how to run it elsewhere: docs/guides/containers.md
ARG BASE=python:3.11.11-slim-bookworm
FROM ${BASE}

# Which extras: humanoid-bench, compile (a C++ compiler for compile=true), and the names of
# [project.optional-dependencies] in pyproject.toml. Everything that is pinned in requirements.lock
# is always in, such as dmc, atari, wandb and video.
ARG EXTRAS=dmc,atari,video
ARG HUMANOID_BENCH=https://github.com/carlosferrazza/humanoid-bench
ARG HUMANOID_BENCH_COMMIT=791405f5eacf879adbc99105adb3fee73f5a49fc
# Where pip looks beside PyPI, such as an index of CPU builds of torch.
ARG PIP_EXTRA_INDEX_URL
# What environment.json of each run gives as git_revision: there is no repository inside.
ARG REVISION

# Rendering without a screen: EGL on a GPU, OSMesa without one. Python only where BASE has none.
RUN apt-get update \
    && packages="libegl1 libopengl0 libosmesa6 libgl1-mesa-dri" \
    && (python3 -c "import ensurepip" 2>/dev/null || touch /no-python) \
    && if [ -e /no-python ]; then packages="$packages python3 python3-venv"; rm /no-python; fi \
    && case ",$EXTRAS," in *,compile,*) packages="$packages g++ python3-dev" ;; esac \
    && case ",$EXTRAS," in *,humanoid-bench,*) packages="$packages git ca-certificates" ;; esac \
    && apt-get install -y --no-install-recommends $packages \
    && rm -rf /var/lib/apt/lists/*

ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1
RUN useradd --create-home --uid 1000 mbrl && python3 -m venv /opt/venv
WORKDIR /app

COPY requirements.lock requirements-dev.lock ./
RUN pip install -r requirements.lock
RUN case ",$EXTRAS," in *,humanoid-bench,*) \
        git clone "$HUMANOID_BENCH" /opt/humanoid-bench \
        && git -C /opt/humanoid-bench checkout -q "$HUMANOID_BENCH_COMMIT" \
        && pip install --no-deps -e /opt/humanoid-bench ;; \
    esac

COPY pyproject.toml README.md LICENSE ./
COPY mbrl_flat mbrl_flat
COPY agents agents
COPY envs envs
COPY configs configs
COPY pretrained pretrained
COPY scripts scripts
# The rest of the extras from pyproject.toml, at the versions of the lock.
RUN names=$(echo "$EXTRAS" | tr ',' '\n' | grep -v -x -E 'humanoid-bench|compile|' | paste -sd,) \
    && pip install --no-build-isolation -c requirements-dev.lock ".[train${names:+,$names}]" \
    && rm -rf build *.egg-info && mkdir runs cache && chown mbrl runs && chmod 1777 cache

ENV MUJOCO_GL=egl NVIDIA_DRIVER_CAPABILITIES=compute,utility,graphics PYTHONUNBUFFERED=1 \
    MPLCONFIGDIR=/app/cache/matplotlib XDG_CACHE_HOME=/app/cache USER=mbrl \
    MBRL_FLAT_LOCK=/app/requirements.lock MBRL_FLAT_REVISION=${REVISION}
USER mbrl
VOLUME /app/runs
ENTRYPOINT ["mbrl-flat-train"]
