//! Releases: what is asked for, as a version, an image and a database, and how two are told apart.

use sha2::{Digest as _, Sha256};
use todo_crds::TodoPlatform;

use super::Release;
use crate::settings::Settings;

/// The release that the manifest asks for. A digest says what to pull more exactly than the version does.
pub fn target(platform: &TodoPlatform, settings: &Settings) -> Release {
    let version = &platform.spec.version;
    let image = platform.spec.image.as_ref();
    let repository = image.and_then(|image| image.repository.as_deref());
    let repository = repository.unwrap_or(&settings.image_repository);
    let image = match image.and_then(|image| image.digest.as_deref()) {
        Some(digest) => format!("{repository}@{digest}"),
        None => format!("{repository}:{version}"),
    };
    Release {
        version: version.clone(),
        image,
        database: platform.spec.database.url_secret_ref.clone(),
    }
}

/// What names a release's migration: 10 hexadecimal digits. Another image or another database is another migration.
pub fn migration_hash(release: &Release) -> String {
    let database = release.database.as_ref();
    let database = database.map_or_else(String::new, |secret| format!("{}/{}", secret.name, secret.key));
    let digest = Sha256::digest(format!("{}\n{}\n{database}", release.version, release.image));
    hex::encode(&digest[..5])
}
