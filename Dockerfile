# The recorder in a container; docs/docker.md says more.
#
#   docker build -t mmdata .
#   docker run --rm -v "$PWD/data:/data" mmdata record config/demo.yaml
#
# What installs and compiles stays in the first two stages. The last one copies dependencies and code from them as
# layers of their own: a change of the code reinstalls no dependency, and moves only some megabytes to a registry.

FROM python:3.13-slim-trixie AS dependencies
WORKDIR /build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
COPY pyproject.toml constraints.txt ./
# Tests and C headers of libraries are of no use to a program. Bytecode is made here, as a user cannot write it later,
# and unchecked, as nobody edits a library in an image.
RUN python3 -c "import tomllib; print(*tomllib.load(open('pyproject.toml', 'rb'))['project']['dependencies'], sep='\n')" \
      > dependencies.txt \
 && python3 -m venv --without-pip /opt/mmdata \
 && python3 -m pip --python /opt/mmdata/bin/python install --no-compile -r dependencies.txt -c constraints.txt \
 && find /opt/mmdata/lib -type d \( -name tests -o -name include \) -prune -exec rm -rf {} + \
 && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/mmdata/lib

FROM dependencies AS build
RUN python3 -m venv /opt/tools \
 && /opt/tools/bin/pip install hatchling -c constraints.txt
COPY README.md LICENSE ./
COPY datasets datasets
COPY recorder recorder
COPY replay replay
COPY sandbox sandbox
COPY cli cli
# One date for all files: the cache of compiled kernels knows a source by its time, and a layer keeps no fraction of
# a second.
RUN /opt/tools/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && python3 -m pip --python /opt/mmdata/bin/python install --no-compile --no-deps --prefix /install dist/*.whl \
 && python3 -m compileall -q --invalidation-mode unchecked-hash -s /install -p /opt/mmdata /install/lib \
 && find /install -exec touch --date 2026-01-01T00:00:00Z {} +
# Compiled for the processor that builds (code for any processor rebuilds books 1.6 times slower); on another one the
# kernels are compiled when they are first used, so every user may write here.
ENV NUMBA_CACHE_DIR=/var/cache/mmdata
RUN cp --archive /install/. /opt/mmdata/ \
 && /opt/mmdata/bin/python -c "from mmdata.recorder.levels import warm_up; warm_up()" \
 && /opt/mmdata/bin/python -c "from mmdata.replay import warm_up; warm_up()" \
 && chmod --recursive a+rwX "$NUMBA_CACHE_DIR"

FROM python:3.13-slim-trixie
LABEL org.opencontainers.image.title="mmdata" \
      org.opencontainers.image.description="Market data you can trust, and fills you can believe: record it, prove it, replay it." \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /mmdata
# The jobs in config/ say `root: data`, and so does every default: in here that is the volume.
RUN groupadd --gid 1000 mmdata \
 && useradd --uid 1000 --gid 1000 --no-create-home --home-dir /mmdata --shell /usr/sbin/nologin mmdata \
 && install --directory --owner mmdata --group mmdata /data \
 && install --directory --mode 777 /var/cache/mmdata \
 && ln --symbolic /data data
COPY --from=dependencies /opt/mmdata /opt/mmdata
COPY --from=build /install /opt/mmdata
COPY --from=build /var/cache/mmdata /var/cache/mmdata
COPY config config
ENV PATH=/opt/mmdata/bin:$PATH MMDATA_DATA=/data NUMBA_CACHE_DIR=/var/cache/mmdata
# By number: Kubernetes' runAsNonRoot understands no name.
USER 1000:1000
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["mmdata", "status"]
ENTRYPOINT ["mmdata"]
CMD ["--help"]
