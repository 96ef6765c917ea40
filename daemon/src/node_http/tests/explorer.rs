//! The page as the node serves it; what it does in a browser is tested in `tests/tests/explorer.rs`.

use std::{collections::BTreeSet, fs, path::Path};

use reqwest::StatusCode;

use super::support::Server;
use crate::node_http::explorer::FILES;

#[tokio::test]
async fn the_page_and_its_parts_are_served() {
    let server = Server::start().await;
    // Opened in a browser the node shows the page; the classic API stays where it is.
    let page = server.http.get(&server.base).send().await.unwrap();
    assert_eq!((page.status(), page.url().path()), (StatusCode::OK, "/explorer"));
    assert!(page.text().await.unwrap().starts_with("<!doctype html>"));
    for file in FILES {
        let response =
            server.http.get(format!("{}/explorer/{}", server.base, file.name)).send().await.unwrap();
        let headers = response.headers().clone();
        assert_eq!(headers["content-type"], file.kind, "{}", file.name);
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'self';"));
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(response.text().await.unwrap(), file.text);
    }
    let (status, error) = server.get("/explorer/..%2fmod.rs").await;
    assert_eq!((status, &error["code"]), (StatusCode::NOT_FOUND, &"not_found".into()));
}

#[test]
fn no_part_is_left_out_or_comes_from_elsewhere() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/node_http/explorer");
    let names = fs::read_dir(directory).unwrap().map(|file| file.unwrap().file_name().into_string().unwrap());
    let parts: BTreeSet<String> = names.filter(|name| !(name == "mod.rs" || name == "index.html")).collect();
    assert_eq!(parts, FILES.iter().map(|file| file.name.to_owned()).collect());
    for text in FILES.iter().map(|file| file.text).chain([include_str!("../explorer/index.html")]) {
        // The one address in it names what an SVG is; nothing is fetched from there.
        let addresses = text.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
        let addresses = addresses.replace("\"http://www.w3.org/2000/svg\"", "");
        assert!(
            !addresses.contains("//www") && !addresses.contains("http:") && !addresses.contains("https:")
        );
        assert!(
            !text.contains("innerHTML") && !text.contains("insertAdjacentHTML") && !text.contains("eval(")
        );
    }
}
