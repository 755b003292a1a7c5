-- The read model, version 1. It is a fold of the log and can be dropped and rebuilt: a changed shape is another schema,
-- which is filled while this one is still used. Only columns are added here, and rows already written lack them.
CREATE SCHEMA IF NOT EXISTS read_v1;
SET LOCAL search_path TO read_v1;

-- The log that this read model is the fold of: one row. Events of another log must not be applied.
CREATE TABLE IF NOT EXISTS origin (
    is_only    boolean PRIMARY KEY DEFAULT true CHECK (is_only),
    cluster_id text NOT NULL,
    prefix     text NOT NULL,
    partitions integer NOT NULL
);

-- The fill factor leaves room on each page for updates in place: an order changes about ten times.
CREATE TABLE IF NOT EXISTS orders (
    order_id        uuid PRIMARY KEY,
    status          smallint NOT NULL,
    end_reason      smallint NOT NULL,
    customer_id     text NOT NULL,
    total           bigint NOT NULL,
    currency        text NOT NULL,
    line_count      integer NOT NULL,
    placed_at       timestamptz NOT NULL,
    confirmed_at    timestamptz,
    updated_at      timestamptz NOT NULL,
    version         bigint NOT NULL,
    tracking_number text NOT NULL,
    refunded        bigint NOT NULL,
    late            boolean NOT NULL
) WITH (fillfactor = 70);
-- Both indexes are scanned backwards: pages go from the newest order to the oldest.
CREATE INDEX IF NOT EXISTS orders_by_status ON orders (status, placed_at, order_id);
CREATE INDEX IF NOT EXISTS orders_by_customer ON orders (customer_id, placed_at, order_id);

CREATE TABLE IF NOT EXISTS order_lines (
    order_id    uuid NOT NULL,
    position    integer NOT NULL,
    sku         text NOT NULL,
    quantity    bigint NOT NULL,
    unit_price  bigint NOT NULL,
    discount    bigint NOT NULL,
    description text NOT NULL,
    PRIMARY KEY (order_id, position)
);

-- The history of each order: its records as they are in the log, with partition and offset.
CREATE TABLE IF NOT EXISTS order_events (
    order_id  uuid NOT NULL,
    version   bigint NOT NULL,
    partition integer NOT NULL,
    "offset"  bigint NOT NULL,
    time      timestamptz NOT NULL,
    kind      text NOT NULL,
    record    bytea NOT NULL,
    PRIMARY KEY (order_id, version)
);

CREATE TABLE IF NOT EXISTS stock (
    sku      text PRIMARY KEY,
    on_hand  bigint NOT NULL,
    reserved bigint NOT NULL,
    received bigint NOT NULL,
    deducted bigint NOT NULL,
    version  bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS payments (
    order_id           uuid PRIMARY KEY,
    status             smallint NOT NULL,
    amount             bigint NOT NULL,
    currency           text NOT NULL,
    provider_reference text NOT NULL,
    flagged            boolean NOT NULL,
    version            bigint NOT NULL
) WITH (fillfactor = 70);

CREATE TABLE IF NOT EXISTS shipments (
    order_id        uuid PRIMARY KEY,
    status          smallint NOT NULL,
    tracking_number text NOT NULL,
    version         bigint NOT NULL
) WITH (fillfactor = 70);

-- The position of each partition; it moves in the transaction that applies the events.
CREATE TABLE IF NOT EXISTS positions (
    topic       text NOT NULL,
    partition   integer NOT NULL,
    next_offset bigint NOT NULL,
    -- A schema id in use: a registry that does not know it was wiped or replaced.
    schema_id   bigint,
    PRIMARY KEY (topic, partition)
) WITH (fillfactor = 50);

-- The last record below the position: when the log holds another record at this offset, the log was replaced.
ALTER TABLE positions
    ADD COLUMN IF NOT EXISTS last_offset bigint,
    ADD COLUMN IF NOT EXISTS last_sent_ms bigint,
    ADD COLUMN IF NOT EXISTS last_key bytea;

-- Keys with a record that could not be applied, from that record on. The empty key represents all records without a
-- key. The records themselves stay in the log.
CREATE TABLE IF NOT EXISTS parked (
    topic        text NOT NULL,
    partition    integer NOT NULL,
    key          bytea NOT NULL,
    first_offset bigint NOT NULL,
    last_offset  bigint NOT NULL,
    records      bigint NOT NULL,
    error        text NOT NULL,
    parked_at    timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (topic, partition, key)
);
