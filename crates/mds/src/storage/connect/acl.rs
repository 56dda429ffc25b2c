//! New objects of S3 with an access control list, for buckets that belong to somebody else.
//!
//! `x-amz-acl` belongs to the request that makes an object: `PutObject`, and `CreateMultipartUpload`
//! for one that goes up in parts. The header must be signed, which `object_store` does for the
//! headers that a client sends with all its requests; so there are two clients, and the one that
//! sends the header does nothing else.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::aws::AmazonS3;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartId, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

/// A bucket whose new objects get an access control list.
#[derive(Debug)]
pub(super) struct WithAcl {
    /// For all but the making of objects.
    pub(super) plain: Arc<AmazonS3>,
    /// Sends the header with every request.
    pub(super) maker: AmazonS3,
}

impl fmt::Display for WithAcl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plain.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for WithAcl {
    async fn put_opts(&self, to: &Path, bytes: PutPayload, opts: PutOptions) -> Result<PutResult> {
        self.maker.put_opts(to, bytes, opts).await
    }

    async fn put_multipart_opts(
        &self,
        to: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let id = self.maker.create_multipart_opts(to, opts).await?;
        let place = Place { store: Arc::clone(&self.plain), path: to.clone(), id };
        Ok(Box::new(Upload { place: Arc::new(place), parts: Arc::default(), begun: 0 }))
    }

    async fn get_opts(&self, from: &Path, options: GetOptions) -> Result<GetResult> {
        self.plain.get_opts(from, options).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.plain.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.plain.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.plain.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.maker.copy_opts(from, to, options).await
    }
}

#[derive(Debug)]
struct Place {
    store: Arc<AmazonS3>,
    path: Path,
    id: MultipartId,
}

/// An object that goes up in parts.
#[derive(Debug)]
struct Upload {
    place: Arc<Place>,
    /// Those that have arrived, by their numbers.
    parts: Arc<Mutex<Vec<(usize, PartId)>>>,
    begun: usize,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let number = self.begun;
        self.begun += 1;
        let (place, parts) = (Arc::clone(&self.place), Arc::clone(&self.parts));
        Box::pin(async move {
            let part = place.store.put_part(&place.path, &place.id, number, data).await?;
            parts.lock().unwrap_or_else(PoisonError::into_inner).push((number, part));
            Ok(())
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let mut parts =
            std::mem::take(&mut *self.parts.lock().unwrap_or_else(PoisonError::into_inner));
        if parts.len() != self.begun {
            return Err(object_store::Error::Generic {
                store: "S3",
                source: format!("{} of {} parts have arrived", parts.len(), self.begun).into(),
            });
        }
        parts.sort_by_key(|(number, _)| *number);
        let parts = parts.into_iter().map(|(_, part)| part).collect();
        self.place.store.complete_multipart(&self.place.path, &self.place.id, parts).await
    }

    async fn abort(&mut self) -> Result<()> {
        self.place.store.abort_multipart(&self.place.path, &self.place.id).await
    }
}
