//! What the operator is told at its start, the same for every platform.

/// What the operator is told at its start, the same for every platform.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The image repository of platforms that name none, without tag and digest: that of the operator's own image.
    pub image_repository: String,
    /// The image of the PostgreSQL that a platform gets for evaluation when the cluster has no CloudNativePG.
    pub evaluation_postgres_image: String,
    /// The domain of the cluster's services, `cluster.local` in most.
    pub cluster_domain: String,
    /// The namespace that the operator runs in: its pods may call the internal API of a platform.
    pub namespace: String,
}
