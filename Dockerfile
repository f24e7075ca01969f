# One image for all of glassq: the intake (glassq-web), the pool (glassq-worker), tasks over HTTP (glassq-tasks), the queue
# (docker/queue), and the command glassq. docker/compose.yaml runs them together:
#     docker build -t glassq .
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv python3-dev gcc libc6-dev
WORKDIR /src
COPY . .
# The same installation as on a machine: locked versions with their hashes, in an environment of its own
RUN DESTDIR=/image PYTHON=/usr/bin/python3 tools/install

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends beanstalkd ca-certificates python3 tini \
    && rm -rf /var/lib/apt/lists/*
# A fixed number, so that files in volumes keep their owner. A new volume takes owner and mode of the directory here.
RUN useradd --system --uid 990 --home-dir /var/lib/glassq --shell /usr/sbin/nologin glassq \
    && install -d -o glassq -g glassq -m 700 \
        /run/glassq /run/glassq-tasks /run/glassq-web /run/glassq-worker /var/cache/glassq /var/lib/glassq /var/lib/glassq/bodies \
        /var/lib/glassq-beanstalkd /var/lib/glassq-tasks /var/spool/glassq
COPY --from=build /image/opt/glassq /opt/glassq
COPY docker/glassq.toml docker/handlers.py /etc/glassq/
COPY docker/queue docker/healthy /usr/local/bin/
ENV PATH=/opt/glassq/bin:$PATH
USER glassq
WORKDIR /etc/glassq
# tini passes signals on to the program alone, and reaps what handlers leave behind
ENTRYPOINT ["tini", "--"]
# the intake, unless the container says otherwise: glassq-worker, glassq-tasks, queue
CMD ["glassq-web"]
EXPOSE 8080 8083
STOPSIGNAL SIGTERM
