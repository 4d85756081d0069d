# bnnlight with all that it needs, for jobs on a cluster: PyTorch with its own CUDA libraries. The driver comes from the
# host, through NVIDIA's container runtime; without one the same image trains on CPUs.
#
#   make image
#   docker run --rm bnnlight --version
#   docker run --rm --gpus all --shm-size 8g -v DATA:/data:ro -v RUNS:/runs bnnlight \
#       fit --config /opt/bnnlight/configs/resnet18_cifar10.yaml --data.root /data
#
# Needs: docker (or podman, buildah), 15 GB of disk, the package index. docs/cluster.md has the rest.
# Stages are ordered by how often they change: the system, the dependencies (6.6 GB), the code.

FROM debian:bookworm-slim AS system
# tini: what runs as process 1 gets no signal that it has no handler for, and Python has none before it has started
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/log/apt /var/log/dpkg.log
ENV PATH=/opt/venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# Only what pyproject.toml says of dependencies, always of the same age: no other line of it installs them anew.
FROM system AS requirements
COPY pyproject.toml /src/
RUN python3 -c "import tomllib; p = tomllib.load(open('/src/pyproject.toml', 'rb')); q = p['project']; \
        e = q['optional-dependencies']; \
        print(*q['dependencies'], *e['train'], *e['deploy'], *e['hub'], sep='\n', file=open('/src/run.txt', 'w')); \
        print(*p['build-system']['requires'], sep='\n', file=open('/src/build.txt', 'w'))" \
    && touch --date=@0 /src/run.txt /src/build.txt

FROM system AS dependencies
COPY --from=requirements /src/run.txt /opt/requirements.txt
RUN python3 -m venv /opt/venv && pip install --requirement /opt/requirements.txt

FROM system AS wheel
COPY --from=requirements /src/build.txt /src/
RUN python3 -m venv /opt/venv && pip install --requirement /src/build.txt
COPY pyproject.toml README.md LICENSE /src/
COPY models /src/models
COPY configs /src/configs
COPY bnnlight /src/bnnlight
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /dist /src

# On top of the dependencies, not beside them: nothing large is copied.
FROM dependencies
# Writable for everyone, as some clusters run an image under a user id of their own. /tmp is home to caches and settings
# (matplotlib, W&B, torch): it is writable wherever the rest of the image is not, and getpass finds a name.
# A run that is given no directory makes one under runs/ of where it is started.
RUN useradd --uid 1000 --home-dir /tmp --no-create-home bnnlight && install -d -m 1777 /bnnlight /runs \
    && ln -s /runs /bnnlight/runs
ENV HOME=/tmp USER=bnnlight
COPY configs /opt/bnnlight/configs
COPY --from=wheel /dist /opt/dist
# What a run notes of the code, as there is no git in here. Before RUN: buildah would else keep the last one's.
ARG COMMIT=""
RUN pip install --no-deps /opt/dist/*.whl && rm -r /opt/dist
ENV BNNLIGHT_COMMIT=$COMMIT
LABEL org.opencontainers.image.title=bnnlight org.opencontainers.image.revision=$COMMIT
# a number, so that Kubernetes can see that it is not root
USER 1000:1000
WORKDIR /bnnlight
ENTRYPOINT ["tini", "--", "bnnlight"]
CMD ["--help"]
