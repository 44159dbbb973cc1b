# One image for every process: `docker build -t colo-proxy .`
#
# Where no registry is reachable: BASE_IMAGE is any image with Python >= 3.11 and pip, and ./wheels holds the
# dependencies (and what builds) as wheels; then add --build-arg PIP_ARGS=--no-index. BUILD_IMAGE is the same with a C
# compiler besides, where the other has none. tests/containers/base_image.py makes them all from what is at hand.
ARG BASE_IMAGE=python:3.12-slim-bookworm
ARG BUILD_IMAGE=

FROM ${BUILD_IMAGE:-${BASE_IMAGE}} AS build
ARG PIP_ARGS=""
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PIP_PREFER_BINARY=1
WORKDIR /src
# Dependencies first: a change of our own source leaves this layer alone.
COPY pyproject.toml ./
COPY wheels* ./wheels/
RUN python3 -m venv --without-pip /opt/colo \
 && python3 -c "import tomllib; about = tomllib.load(open('pyproject.toml', 'rb'))['project']; \
      print('\n'.join(about['dependencies'] + about['optional-dependencies']['vote']))" > requirements.txt \
 && python3 -m pip --python /opt/colo/bin/python3 install --find-links wheels ${PIP_ARGS} -r requirements.txt
COPY README.md LICENSE hatch_build.py ./
COPY proto proto
COPY services services
# The cores that see every frame become C extensions (hatch_build.py) where there is a compiler or Debian's can be had.
# COLO_COMPILE=1: or nothing is built; 0: they stay Python.
ARG COLO_COMPILE=auto
RUN case "$COLO_COMPILE $PIP_ARGS" in \
      0*|auto*--no-index*) ;; \
      *) command -v gcc >/dev/null \
         || { apt-get update -qq && apt-get install -y -qq --no-install-recommends gcc libc6-dev; } \
         || [ "$COLO_COMPILE" = auto ] ;; \
    esac
RUN COLO_COMPILE=$COLO_COMPILE python3 -m pip wheel --no-deps --wheel-dir dist --find-links wheels ${PIP_ARGS} . \
 && python3 -m pip --python /opt/colo/bin/python3 install --no-deps --no-index dist/*.whl \
 && rm -rf /opt/colo/include /opt/colo/lib64 /opt/colo/bin/activate* /opt/colo/bin/Activate*

FROM ${BASE_IMAGE}
LABEL org.opencontainers.image.title="colo-proxy" \
      org.opencontainers.image.description="A COLO proxy as a pipeline of processes" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/colo /opt/colo
# Base images come without bytecode, and a read-only container compiles its imports at every start: do it once, for
# what a process imports. Then: the sockets of a host's processes live in /run/colo, a volume that they share.
RUN /opt/colo/bin/python3 -c "import importlib, pkgutil, pyroute2, colo_cli, colo_frame, colo_netdev, colo_runtime, colo_vote.stores.etcd; \
      [importlib.import_module(f'{p.__name__}.{m.name}') for p in (colo_cli, colo_frame, colo_netdev, colo_runtime, colo_vote) \
       for m in pkgutil.iter_modules(p.__path__) if m.name != '__main__']; \
      importlib.import_module('colo_runtime.service').services()" \
 && echo 'colo:x:65532:' >> /etc/group \
 && echo 'colo:x:65532:65532:COLO proxy:/nonexistent:/usr/sbin/nologin' >> /etc/passwd \
 && mkdir -p /run/colo && chown 65532:65532 /run/colo && chmod 1770 /run/colo
ENV PATH=/opt/colo/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    COLO_HTTP=127.0.0.1:9100 \
    COLO_LOG_FORMAT=json
USER 65532:65532
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 CMD ["colo", "health"]
ENTRYPOINT ["colo"]
