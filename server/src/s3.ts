// A separate entry point: a program that keeps files in a directory neither installs nor loads the AWS SDK.
export { s3Blobs, type S3Blobs, type S3BlobsOptions } from './blobs/s3/s3-blobs.js'
