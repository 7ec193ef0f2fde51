//! `/docs` and `/`

use crate::app::App;

#[tokio::test]
async fn the_api_can_be_read_in_a_browser_without_any_other_server() {
    let app = App::spawn().await;
    let visitor = app.nobody();
    assert_eq!(visitor.get("/").await.expect(307).header("location"), "/docs/");
    assert_eq!(visitor.get("/docs").await.expect(303).header("location"), "/docs/");
    let page = visitor.get("/docs/").await.expect(200);
    assert!(page.header("content-type").starts_with("text/html"));
    assert!(page.header("content-security-policy").contains("default-src 'self'"));
    for asset in [
        "swagger-ui.css",
        "swagger-ui-bundle.js",
        "swagger-ui-standalone-preset.js",
        "swagger-initializer.js",
    ] {
        let asset = visitor.get(&format!("/docs/{asset}")).await.expect(200);
        assert_eq!(asset.header("x-content-type-options"), "nosniff");
    }
    let initializer = visitor.get("/docs/swagger-initializer.js").await;
    assert!(initializer.text.contains("/openapi.json"), "{}", initializer.text);
}
