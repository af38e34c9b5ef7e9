//! Values of any type, as queries have them: functions and operators by which they are compared, added up and used as
//! texts, whatever type PostgreSQL gives their column.
//!
//! A key that has had values of several types is `jsonb`. It is compared with a number by those of its values that are
//! numbers, and with a text by those that are texts. PostgreSQL finds the operator by the types on both sides.

use postgres::Transaction;

use super::error::Failure;

/// The types of values: texts, numbers, truth values, times, and those of several types.
const TYPES: [&str; 5] = ["text", "numeric", "boolean", "timestamptz", "jsonb"];

const COMPARISONS: [&str; 6] = ["=", "<>", "<", "<=", ">", ">="];

/// Pairs of types that are compared as one: the common type, and how both become it. A number and a text are never equal,
/// and neither is less than the other.
const PAIRS: [(&str, &str, &str, &str); 8] = [
    ("jsonb", "numeric", "stride.number($)", "$"),
    ("jsonb", "text", "stride.letters($)", "$"),
    ("jsonb", "boolean", "stride.number($)", "$::int::numeric"),
    ("jsonb", "timestamptz", "stride.time($)", "$"),
    ("boolean", "numeric", "$::int::numeric", "$"),
    ("text", "timestamptz", "stride.time($)", "$"),
    ("text", "numeric", "NULL::numeric", "$"),
    ("text", "boolean", "NULL::boolean", "$"),
];

/// What SQL has for one type, for all of them. `number` and `letters`: a number, or a text, and no other value. `num`: a
/// number, or a text that is one. `amount`, `whole` and `bits`: what arithmetic makes of a value, also of a text that only
/// starts with a number. `time`: a time, or a text that is one. `day`: its date, which is a text. `json`: an object or an array, to look into. `truth`: what a
/// condition makes of a value. `rank` and `ordered`: numbers come before texts. `sqrt` and its like are `NULL` where
/// PostgreSQL's own would end the query.
const FUNCTIONS: &str = r#"
CREATE FUNCTION stride.number(jsonb) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'number' THEN ($1 #>> '{}')::numeric
        WHEN 'boolean' THEN ($1 #>> '{}')::boolean::int::numeric END $$;
CREATE FUNCTION stride.letters(jsonb) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'string' THEN ($1 #>> '{}') COLLATE "C" END $$;

CREATE FUNCTION stride.text(text) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.text(numeric) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT trim_scale($1)::text COLLATE "C" $$;
CREATE FUNCTION stride.text(double precision) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT $1::text COLLATE "C" $$;
CREATE FUNCTION stride.text(integer) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $1::text COLLATE "C" $$;
CREATE FUNCTION stride.text(bigint) RETURNS text IMMUTABLE LANGUAGE sql AS $$ SELECT $1::text COLLATE "C" $$;
CREATE FUNCTION stride.text(boolean) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT $1::int::text COLLATE "C" $$;
CREATE FUNCTION stride.text(date) RETURNS text STABLE LANGUAGE sql AS $$ SELECT $1::text COLLATE "C" $$;
CREATE FUNCTION stride.text(interval) RETURNS text STABLE LANGUAGE sql AS $$ SELECT $1::text COLLATE "C" $$;
CREATE FUNCTION stride.text(timestamptz) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') COLLATE "C" $$;
CREATE FUNCTION stride.text(timestamp) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT to_char($1, 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') COLLATE "C" $$;
CREATE FUNCTION stride.text(jsonb) RETURNS text IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'string' THEN $1 #>> '{}'
        WHEN 'boolean' THEN ($1 #>> '{}')::boolean::int::text
        WHEN 'number' THEN $1::text
        -- Without the spaces that PostgreSQL puts between the parts.
        ELSE regexp_replace($1::text, '("([^"\\]|\\.)*")|([:,]) ', '\1\3', 'g') END COLLATE "C" $$;

CREATE FUNCTION stride.amount(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.amount(double precision) RETURNS double precision IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.amount(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.amount(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.amount(boolean) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT $1::int::numeric $$;
CREATE FUNCTION stride.amount(text) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 IS NOT NULL THEN coalesce(substring($1 from
        '^\s*([-+]?([0-9]{1,255}(\.[0-9]{0,255})?|\.[0-9]{1,255})([eE][-+]?[0-9]{1,3})?)')::numeric, 0) END $$;
CREATE FUNCTION stride.amount(jsonb) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'number' THEN ($1 #>> '{}')::numeric
        WHEN 'boolean' THEN ($1 #>> '{}')::boolean::int::numeric
        WHEN 'string' THEN stride.amount($1 #>> '{}')
        WHEN 'null' THEN NULL ELSE CASE WHEN $1 IS NOT NULL THEN 0 END END $$;
CREATE FUNCTION stride.amount(interval) RETURNS interval IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.amount(date) RETURNS date IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.amount(timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;

CREATE FUNCTION stride.whole(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT trunc($1) $$;
CREATE FUNCTION stride.whole(bigint) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.whole(integer) RETURNS integer IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.whole(boolean) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT $1::int::numeric $$;
CREATE FUNCTION stride.whole(double precision) RETURNS numeric IMMUTABLE LANGUAGE sql
    AS $$ SELECT trunc($1::numeric) $$;
CREATE FUNCTION stride.whole(text) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 IS NOT NULL THEN coalesce(substring($1 from '^\s*([-+]?[0-9]{1,255})')::numeric, 0) END $$;
CREATE FUNCTION stride.whole(jsonb) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'string' THEN stride.whole($1 #>> '{}')
        ELSE trunc(stride.amount($1)) END $$;

CREATE FUNCTION stride.bits(numeric) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN abs($1) < 9223372036854775808 THEN trunc($1)::bigint END $$;
CREATE FUNCTION stride.bits(boolean) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$ SELECT $1::int::bigint $$;
CREATE FUNCTION stride.bits(text) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT stride.bits(stride.whole($1)) $$;
CREATE FUNCTION stride.bits(jsonb) RETURNS bigint IMMUTABLE LANGUAGE sql AS $$
    SELECT stride.bits(stride.whole($1)) $$;

CREATE FUNCTION stride.substr(text, numeric) RETURNS text IMMUTABLE STRICT LANGUAGE sql AS $$
    SELECT substr($1, CASE WHEN $2 < 0 THEN length($1) + 1 ELSE 0 END
        + trunc(least(greatest($2, -1e9), 1e9))::int) $$;
CREATE FUNCTION stride.substr(text, numeric, numeric) RETURNS text IMMUTABLE STRICT LANGUAGE sql AS $$
    SELECT substr($1, CASE WHEN $2 < 0 THEN length($1) + 1 ELSE 0 END
        + trunc(least(greatest($2, -1e9), 1e9))::int + trunc(least(greatest($3, -1e9), 0))::int,
        trunc(least(abs($3), 1e9))::int) $$;

CREATE FUNCTION stride.parsed(text) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT $1::jsonb $$;
CREATE FUNCTION stride.parsed(numeric) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
CREATE FUNCTION stride.parsed(boolean) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT to_jsonb($1) $$;
CREATE FUNCTION stride.parsed(jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'string' THEN ($1 #>> '{}')::jsonb ELSE $1 END $$;

CREATE FUNCTION stride.num(date) RETURNS date IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.num(interval) RETURNS interval IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.num(timestamp) RETURNS timestamp IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.num(timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;

CREATE FUNCTION stride.json(text) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION stride.json(numeric) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION stride.json(boolean) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION stride.json(timestamptz) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::jsonb $$;
CREATE FUNCTION stride.json(jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;

CREATE FUNCTION stride.truth(boolean) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.truth(numeric) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 <> 0 $$;
CREATE FUNCTION stride.truth(text) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$
    SELECT stride.amount($1) <> 0 $$;
CREATE FUNCTION stride.truth(timestamptz) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$ SELECT $1 IS NOT NULL $$;
CREATE FUNCTION stride.truth(jsonb) RETURNS boolean IMMUTABLE LANGUAGE sql AS $$
    SELECT stride.amount($1) <> 0 $$;

CREATE FUNCTION stride.time(text) RETURNS timestamptz STABLE LANGUAGE sql AS $$
    SELECT CASE WHEN length($1) <= 64 AND $1 ~ ('^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])'
                || '([ Tt]([01][0-9]|2[0-3]):[0-5][0-9](:[0-5][0-9](\.[0-9]+)?)?( *([zZ]|[-+]([01][0-9]|2[0-3])(:?[0-5][0-9])?))?)?$')
            AND left($1, 4) <> '0000' AND (left($1, 10) <> '9999-12-31' OR substr($1, 11) !~ '-')
        THEN CASE WHEN substr($1, 9, 2)::int <=
            extract(day FROM (left($1, 7) || '-01')::date + interval '1 month' - interval '1 day')
        THEN $1::timestamptz END END $$;
CREATE FUNCTION stride.time(numeric) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::timestamptz $$;
CREATE FUNCTION stride.time(boolean) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT NULL::timestamptz $$;
CREATE FUNCTION stride.time(jsonb) RETURNS timestamptz STABLE LANGUAGE sql AS $$
    SELECT stride.time(stride.letters($1)) $$;
CREATE FUNCTION stride.time(timestamptz) RETURNS timestamptz IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.time(timestamp) RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT $1::timestamptz $$;
CREATE FUNCTION stride.time(date) RETURNS timestamptz STABLE LANGUAGE sql AS $$ SELECT $1::timestamptz $$;
CREATE FUNCTION stride.time(interval) RETURNS interval IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;

CREATE FUNCTION stride.day(timestamptz) RETURNS text STABLE LANGUAGE sql AS $$
    SELECT to_char($1 AT TIME ZONE 'UTC', 'YYYY-MM-DD') COLLATE "C" $$;

CREATE FUNCTION stride.ordered(anyelement) RETURNS anyelement IMMUTABLE LANGUAGE sql AS $$ SELECT $1 $$;
CREATE FUNCTION stride.ordered(jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'number' THEN jsonb_build_array(0, $1)
        WHEN 'boolean' THEN jsonb_build_array(0, stride.number($1))
        WHEN 'string' THEN jsonb_build_array(1, $1)
        WHEN 'object' THEN jsonb_build_array(2, $1) WHEN 'array' THEN jsonb_build_array(2, $1) END $$;
CREATE FUNCTION stride.smaller(anyelement, anyelement) RETURNS anyelement IMMUTABLE LANGUAGE sql AS $$
    SELECT least($1, $2) $$;
CREATE FUNCTION stride.larger(anyelement, anyelement) RETURNS anyelement IMMUTABLE LANGUAGE sql AS $$
    SELECT greatest($1, $2) $$;
CREATE FUNCTION stride.smaller(jsonb, jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $2 IS NULL OR stride.ordered($1) <= stride.ordered($2) THEN $1 ELSE $2 END $$;
CREATE FUNCTION stride.larger(jsonb, jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $2 IS NULL OR stride.ordered($1) >= stride.ordered($2) THEN $1 ELSE $2 END $$;
CREATE AGGREGATE stride.min(jsonb) (SFUNC = stride.smaller, STYPE = jsonb);
CREATE AGGREGATE stride.max(jsonb) (SFUNC = stride.larger, STYPE = jsonb);
CREATE AGGREGATE stride.min(boolean) (SFUNC = booland_statefunc, STYPE = boolean);
CREATE AGGREGATE stride.max(boolean) (SFUNC = boolor_statefunc, STYPE = boolean);

CREATE FUNCTION stride.sqrt(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 >= 0 THEN sqrt($1) END $$;
CREATE FUNCTION stride.ln(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 > 0 THEN ln($1) END $$;
CREATE FUNCTION stride.log(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 > 0 THEN log($1) END $$;
CREATE FUNCTION stride.log(numeric, numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 > 0 AND $1 <> 1 AND $2 > 0 THEN log($1, $2) END $$;
CREATE FUNCTION stride.exp(numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN abs($1) <= 700 THEN exp($1) END $$;
CREATE FUNCTION stride.power(numeric, numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE WHEN $1 = 0 THEN CASE WHEN $2 > 0 THEN 0.0 WHEN $2 = 0 THEN 1.0 END
        WHEN $1 < 0 AND $2 <> trunc($2) THEN NULL
        WHEN abs($2) * ln(abs($1)) BETWEEN -700 AND 700 THEN power($1, $2) END $$;
CREATE FUNCTION stride.mod(numeric, numeric) RETURNS numeric IMMUTABLE LANGUAGE sql AS $$
    SELECT mod($1, nullif($2, 0)) $$;
CREATE FUNCTION stride.array_length(jsonb) RETURNS integer IMMUTABLE LANGUAGE sql AS $$
    SELECT CASE jsonb_typeof($1) WHEN 'array' THEN jsonb_array_length($1) ELSE 0 * length($1::text) END $$;
CREATE FUNCTION stride.pi() RETURNS numeric IMMUTABLE LANGUAGE sql AS $$ SELECT 3.141592653589793 $$;

CREATE FUNCTION stride.json_each(jsonb) RETURNS TABLE (key jsonb, value jsonb) IMMUTABLE LANGUAGE sql AS $$
    SELECT to_jsonb(n - 1), stride.value(v) FROM jsonb_array_elements(CASE jsonb_typeof($1) WHEN 'array' THEN $1 END)
        WITH ORDINALITY AS e (v, n)
    UNION ALL SELECT to_jsonb(k), stride.value(v)
        FROM jsonb_each(CASE jsonb_typeof($1) WHEN 'object' THEN $1 END) AS e (k, v) $$;
"#;

/// Makes the functions and operators.
pub(super) fn create(transaction: &mut Transaction<'_>) -> Result<(), Failure> {
    transaction.batch_execute(FUNCTIONS)?;
    transaction.batch_execute(&of_two())?;
    transaction.batch_execute(&operators())?;
    Ok(())
}

/// `either`: the first of two values that is there. `alike`: the first of two, in the type that both have or, if they
/// have different ones, as a value of several types.
fn of_two() -> String {
    let mut sql = String::new();
    for one in TYPES {
        for other in TYPES {
            let json = |of: &str, value: &str| match of {
                "timestamptz" => format!("to_jsonb(stride.out({value}))"),
                _ => format!("to_jsonb({value})"),
            };
            let (common, first, second) = match one == other {
                true => (one, "$1".to_owned(), "$2".to_owned()),
                false => ("jsonb", json(one, "$1"), json(other, "$2")),
            };
            for (name, value) in
                [("either", format!("coalesce({first}, {second})")), ("alike", first.clone())]
            {
                sql += &format!(
                    "CREATE FUNCTION stride.{name}({one}, {other}) RETURNS {common} STABLE LANGUAGE sql \
                     AS $$ SELECT {value} $$;"
                );
            }
        }
    }
    sql
}

fn operators() -> String {
    let mut sql = String::new();
    for (left, right, left_as, right_as) in PAIRS {
        let turned = (right, left, right_as, left_as);
        for (left, right, left_as, right_as) in [(left, right, left_as, right_as), turned] {
            let (one, other) = (left_as.replace('$', "$1"), right_as.replace('$', "$2"));
            for (number, op) in COMPARISONS.iter().enumerate() {
                let compared = format!("{one} {op} {other}");
                // Values of two types are not equal, but only one that is not there is unknown.
                let value = match *op {
                    _ if compared.contains("time") => compared,
                    "=" => format!("coalesce({compared}, ($1 IS NULL OR $2 IS NULL) AND NULL)"),
                    "<>" => format!(
                        "coalesce({compared}, CASE WHEN $1 IS NOT NULL AND $2 IS NOT NULL THEN true END)"
                    ),
                    _ => compared,
                };
                sql += &format!(
                    "CREATE FUNCTION stride.compare{number}({left}, {right}) RETURNS boolean STABLE LANGUAGE sql \
                     AS $$ SELECT {value} $$; \
                     CREATE OPERATOR stride.{op} (LEFTARG = {left}, RIGHTARG = {right}, \
                     FUNCTION = stride.compare{number});"
                );
            }
        }
    }
    sql
}
