# The image of every role: `docker run … floodgate worker`, `… gateway`, `… fake-telegram`. Settings come by FLOODGATE_* variables.

FROM python:3.11-slim AS build
WORKDIR /src
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
RUN python -m venv /opt/floodgate
# Every pinned package is fetched and its hash compared; what is for development only is not installed further down.
# A change of the code leaves this layer as it is.
COPY constraints.txt ./
RUN pip wheel --require-hashes --wheel-dir /wheels -r constraints.txt \
    && pip install --no-index --find-links /wheels hatchling
COPY pyproject.toml README.md LICENSE ./
COPY broker broker
COPY actors actors
COPY producer producer
COPY floodgate floodgate
COPY fake_telegram fake_telegram
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels . \
    && /opt/floodgate/bin/pip install --no-index --find-links /wheels 'telegram-floodgate[all]' \
    && /opt/floodgate/bin/pip uninstall --yes pip

FROM python:3.11-slim
# A user without a name elsewhere, and the folder that a volume with the SQLite state is mounted on: a new volume takes over its owner.
RUN useradd --uid 10001 --no-create-home --home-dir /var/lib/floodgate floodgate \
    && install -d -o floodgate -g floodgate -m 0750 /var/lib/floodgate
COPY --from=build /opt/floodgate /opt/floodgate
ENV PATH=/opt/floodgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    FLOODGATE_STATE_URL=sqlite:////var/lib/floodgate/state.db
USER floodgate
WORKDIR /var/lib/floodgate
# `docker stop` sends SIGTERM: a worker finishes what is in flight and hands back the rest.
ENTRYPOINT ["floodgate"]
CMD ["worker"]
