//! What the application draws: a triangle that turns, into a texture. It knows nothing of kiln.

use kiln::backend::gpu::wgpu;
use std::error::Error;
use std::sync::mpsc::channel;

/// The size of the picture in pixels. A row has a multiple of 256 bytes, so that it can be copied to a buffer.
pub const SIZE: (u32, u32) = (320, 240);

const BYTES: u64 = SIZE.0 as u64 * SIZE.1 as u64 * 4;

pub struct Scene {
    device: wgpu::Device,
    queue: wgpu::Queue,
    pipeline: wgpu::RenderPipeline,
    angle: wgpu::Buffer,
    bindings: wgpu::BindGroup,
    picture: wgpu::Texture,
}

impl Scene {
    pub fn new(device: &wgpu::Device, queue: &wgpu::Queue) -> Self {
        let shader = device.create_shader_module(wgpu::include_wgsl!("triangle.wgsl"));
        let picture = device.create_texture(&wgpu::TextureDescriptor {
            label: Some("picture"),
            size: wgpu::Extent3d { width: SIZE.0, height: SIZE.1, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: wgpu::TextureFormat::Rgba8Unorm,
            usage: wgpu::TextureUsages::RENDER_ATTACHMENT | wgpu::TextureUsages::COPY_SRC,
            view_formats: &[],
        });
        let pipeline = device.create_render_pipeline(&wgpu::RenderPipelineDescriptor {
            label: Some("triangle"),
            layout: None,
            vertex: wgpu::VertexState {
                module: &shader,
                entry_point: Some("corner"),
                compilation_options: Default::default(),
                buffers: &[],
            },
            fragment: Some(wgpu::FragmentState {
                module: &shader,
                entry_point: Some("fill"),
                compilation_options: Default::default(),
                targets: &[Some(picture.format().into())],
            }),
            primitive: Default::default(),
            depth_stencil: None,
            multisample: Default::default(),
            multiview_mask: None,
            cache: None,
        });
        let angle = device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("angle"),
            size: 4,
            usage: wgpu::BufferUsages::UNIFORM | wgpu::BufferUsages::COPY_DST,
            mapped_at_creation: false,
        });
        let bindings = device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some("triangle"),
            layout: &pipeline.get_bind_group_layout(0),
            entries: &[wgpu::BindGroupEntry { binding: 0, resource: angle.as_entire_binding() }],
        });
        Scene { device: device.clone(), queue: queue.clone(), pipeline, angle, bindings, picture }
    }

    /// Draws one picture, and waits until it is there.
    pub fn draw(&self, angle: f32) -> Result<(), Box<dyn Error>> {
        self.queue.write_buffer(&self.angle, 0, &angle.to_ne_bytes());
        let mut encoder = self.device.create_command_encoder(&Default::default());
        let view = self.picture.create_view(&Default::default());
        let mut pass = encoder.begin_render_pass(&wgpu::RenderPassDescriptor {
            label: Some("triangle"),
            color_attachments: &[Some(wgpu::RenderPassColorAttachment {
                view: &view,
                depth_slice: None,
                resolve_target: None,
                ops: wgpu::Operations { load: wgpu::LoadOp::Clear(wgpu::Color::BLACK), store: wgpu::StoreOp::Store },
            })],
            ..Default::default()
        });
        pass.set_pipeline(&self.pipeline);
        pass.set_bind_group(0, &self.bindings, &[]);
        pass.draw(0..3, 0..1);
        drop(pass);
        let submission = self.queue.submit([encoder.finish()]);
        self.wait(submission)
    }

    /// The pixels of the picture that was drawn last.
    pub fn pixels(&self) -> Result<Vec<u8>, Box<dyn Error>> {
        let target = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("pixels"),
            size: BYTES,
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let layout =
            wgpu::TexelCopyBufferLayout { offset: 0, bytes_per_row: Some(SIZE.0 * 4), rows_per_image: Some(SIZE.1) };
        let mut encoder = self.device.create_command_encoder(&Default::default());
        encoder.copy_texture_to_buffer(
            self.picture.as_image_copy(),
            wgpu::TexelCopyBufferInfo { buffer: &target, layout },
            self.picture.size(),
        );
        let submission = self.queue.submit([encoder.finish()]);
        let (sender, mapped) = channel();
        target.slice(..).map_async(wgpu::MapMode::Read, move |result| _ = sender.send(result));
        self.wait(submission)?;
        mapped.recv()??;
        Ok(target.slice(..).get_mapped_range()?.to_vec())
    }

    /// An application may wait on its own device: for what it has drawn, not for all that others have in the queue.
    fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), Box<dyn Error>> {
        self.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None })?;
        Ok(())
    }
}
