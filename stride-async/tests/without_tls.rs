//! Without the feature `tls`. All else that this client does over sockets is tested in `tests/suite`.
#![cfg(not(feature = "tls"))]

use stride_async::Stride;

#[test]
fn https_is_refused_with_an_error_that_names_the_feature() {
    let builder = Stride::builder("key").endpoint("https://127.0.0.1/v1");
    for builder in [builder.clone(), builder.proxy("127.0.0.1:9")] {
        let error = builder.build().unwrap_err();
        assert!(error.to_string().contains("feature `tls`"), "{error}");
    }
}
