-- What fetch_listed_info stores: the list of issues of the Tokyo Stock Exchange.
CREATE TABLE jquants_listed_info (
    date date NOT NULL,
    code varchar(10) NOT NULL,
    company_name text,
    company_name_english text,
    sector_17_code text,
    sector_17_code_name text,
    sector_33_code text,
    sector_33_code_name text,
    scale_category text,
    market_code text,
    market_code_name text,
    margin_code text,
    margin_code_name text,
    product_category text,
    created_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT statement_timestamp(),
    CONSTRAINT jquants_listed_info_pkey PRIMARY KEY (date, code)
);
CREATE INDEX jquants_listed_info_code_idx ON jquants_listed_info (code, date);
COMMENT ON TABLE jquants_listed_info IS
    'The issues listed on a day, as J-Quants gave them to the task fetch_listed_info.';

-- When the next request to a service may leave, whichever node sends it.
CREATE TABLE request_slots (
    service text NOT NULL,
    next_at timestamptz NOT NULL,
    CONSTRAINT request_slots_pkey PRIMARY KEY (service)
);

---- create above / drop below ----

DROP TABLE request_slots;
DROP TABLE jquants_listed_info;
